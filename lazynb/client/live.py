"""Something that grows until it is over, written by the client's loop and read by many.

Any number of threads and tasks read it, each from where it is. A reader that has caught up leaves a
one-shot wake-up behind and sleeps; nobody is woken who does not wait.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Live:
    """What an answer is besides its content: it goes on, it is over, and readers wait for it.

    A subclass changes its content under `_lock`, and then calls `_wake` with what `_sleepers` gave it.

    Attributes
    ----------
    service : str
        Who makes it, for messages.
    error : Exception or None
        What went wrong.
    """

    service: str

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._lock = threading.RLock()  # the garbage collector may end a reader at any point
        self._over = threading.Event()
        self._waiters: list[Callable[[], object]] = []
        self._subscribers: list[Callable[[], None]] = []
        self._readers = 0

    @property
    def done(self) -> bool:
        """Whether it is over, in whatever way."""
        raise NotImplementedError

    def cancel(self) -> None:
        """End it early."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> Self:
        """Wait for the end; an interrupt passes through and does not cancel.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        ServiceError
            The request failed.
        TimeoutError
            It is not over yet.
        """
        if not self._over.wait(timeout):
            raise TimeoutError(f"{self.service} is still answering after {timeout:g} s")
        return self._result()

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a function called after each change, from the client's thread; it must be quick.

        It is called at once when the answer is over already. Returns the function that ends this.
        """
        with self._lock:
            over = self.done
            if not over:
                self._subscribers.append(callback)
        if over:
            callback()

        def unsubscribe() -> None:
            with self._lock, suppress(ValueError):
                self._subscribers.remove(callback)

        return unsubscribe

    def _follow(self, items: list[T]) -> Iterator[T]:
        seen = 0
        self._enter()
        try:
            while True:
                over = self.done  # read first: nothing comes afterwards
                while seen < len(items):
                    yield items[seen]
                    seen += 1
                if over:
                    break
                news = threading.Lock()  # lighter than an event
                news.acquire()
                if self._wake_later(items, seen, news.release):
                    news.acquire()
            self._result()
        finally:
            self._leave()

    async def _afollow(self, items: list[T]) -> AsyncIterator[T]:
        seen = 0
        here = asyncio.get_running_loop()
        self._enter()
        try:
            while True:
                over = self.done
                while seen < len(items):
                    yield items[seen]
                    seen += 1
                if over:
                    break
                news = asyncio.Event()
                if self._wake_later(items, seen, partial(_set_in, here, news)):
                    await news.wait()
            self._result()
        finally:
            self._leave()

    def _wake_later(self, items: list[T], seen: int, wake: Callable[[], object]) -> bool:
        """Leave a wake-up for the next change; False when there is something already."""
        with self._lock:
            if self.done or len(items) > seen:
                return False
            self._waiters.append(wake)
            return True

    def _enter(self) -> None:
        with self._lock:
            self._readers += 1

    def _leave(self) -> None:
        with self._lock:
            self._readers -= 1
            alone = not self._readers
        if alone and not self.done:
            self.cancel()

    def _result(self) -> Self:
        if self.error is not None:
            raise self.error
        return self

    def _sleepers(self) -> list[Callable[[], object]]:
        """Take the wake-ups of those who wait; the lock is held."""
        sleepers, self._waiters = self._waiters, []
        return sleepers

    @staticmethod
    def _wake(sleepers: list[Callable[[], object]]) -> None:
        for wake in sleepers:
            wake()

    def _tell(self) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback()
            except Exception:  # noqa: BLE001 - a view must not end the answer
                _log.exception("A view of %r failed", self)


def _set_in(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    with suppress(RuntimeError):  # that loop is closed: nobody waits there
        loop.call_soon_threadsafe(news.set)
