"""One event loop in a daemon thread, for all requests of this process.

A notebook's own loop is busy while a cell runs, and a script has none; so requests live on a loop
of their own, made on first use. Threads hand coroutines over: `run` waits for the result, `spawn`
returns a future. A forked child starts a loop of its own, since threads do not survive a fork.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

THREAD = "lazynb-client"
CLEANUP = 2.0  # seconds that a cancelled coroutine gets to close its connections

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_at_exit: list[Callable[[], Coroutine[Any, Any, None]]] = []
_orphans: list[Any] = []  # the parent's loop in a fork: never used, never collected


def get_loop() -> asyncio.AbstractEventLoop:
    """Return the client's event loop, starting its thread on first use."""
    global _loop  # noqa: PLW0603
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name=THREAD, daemon=True).start()
            atexit.register(_close)
        return _loop


def spawn(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the client's loop; cancelling the future cancels the coroutine."""
    return asyncio.run_coroutine_threadsafe(coroutine, get_loop())


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the client's loop and wait for its result.

    A KeyboardInterrupt, or any other exception that reaches the waiting thread, cancels the
    coroutine, waits briefly for its clean-up, and passes through.
    """
    over = threading.Event()

    async def watched() -> T:
        try:
            return await coroutine
        finally:
            over.set()

    if threading.current_thread().name == THREAD:
        coroutine.close()
        raise RuntimeError("run() would wait for itself: use await on the client's loop")
    future = spawn(watched())
    try:
        return future.result()
    except BaseException:
        if future.cancel():
            over.wait(CLEANUP)
        raise


def at_exit(close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Await `close()` on the loop when the process ends, while the loop still runs."""
    _at_exit.append(close)


def _close() -> None:
    if _loop is None or not _loop.is_running():
        return
    for close in _at_exit:
        with suppress(Exception, CancelledError):
            spawn(close()).result(CLEANUP)
    _loop.call_soon_threadsafe(_loop.stop)


def _forget() -> None:
    """Drop the loop of the parent: in a forked child its thread does not run."""
    global _loop, _lock
    _orphans.append(_loop)
    _loop, _lock = None, threading.Lock()
    _at_exit.clear()
    atexit.unregister(_close)


os.register_at_fork(after_in_child=_forget)
