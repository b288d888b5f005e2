"""`StreamCallHelper`: what a call streams, as something to iterate over.

    for chunk in StreamCallHelper(flow)("hello"):
        print(chunk, end="")

The call runs in a thread of its own (in a task, under `async for`) with a sink that every module
inside it pushes its text to. Nothing runs before the first chunk is asked for. Leaving the loop
cancels the call.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from lazynb.errors import FlowError
from lazynb.session import Chunk, Scope, Sink, cancelling, collecting, current_scope, current_sink

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = [
    "Chunk",
    "Scope",
    "Sink",
    "Stream",
    "StreamCallHelper",
    "cancelling",
    "collecting",
    "current_scope",
    "current_sink",
]


class StreamCallHelper:
    """Makes a module, a flow or any callable iterable.

    Parameters
    ----------
    call : callable
        What is called. In a flow, wrap the outermost one.

    Examples
    --------
    >>> list(StreamCallHelper(str.upper)('hello'))  # what does not stream comes as one chunk
    ['HELLO']
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        if not callable(call):
            raise FlowError(
                f"{call!r} cannot be called", hint="Wrap a module, a flow or a function."
            )
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Stream:
        """Return the stream of a call with these arguments; it begins when it is iterated over."""
        return Stream(self._call, args, kwargs)

    def __repr__(self) -> str:
        return f"StreamCallHelper({self._call!r})"


class Stream:
    """The chunks of one call, for `for` and `async for`.

    Leaving the loop before its end cancels the call. Exceptions of the call are raised in the loop, after the
    chunks that came before them.
    """

    def __init__(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._call = call
        self._args = args
        self._kwargs = kwargs
        self._chunks: deque[Chunk] = deque()
        self._streamed = False
        self._ended = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._sink: Sink | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake: Callable[[], object] | None = None  # tells the event loop that something came
        self._changed = threading.Condition()

    @property
    def result(self) -> Any:
        """What the call returned; waits for its end and raises its exception."""
        self._start()
        try:
            with self._changed:
                if self._task is not None and not self._ended:
                    raise FlowError(
                        "The stream has not ended", hint="Read `.result` after the loop."
                    )
                while not self._ended:
                    self._changed.wait()
        except KeyboardInterrupt:
            self.cancel()
            raise
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """Stop the call: requests to servers are dropped, and no further step begins."""
        if self._sink is not None and not self._ended:
            self._sink.scope.cancel()
            if self._task is not None:
                _soon(self._task.get_loop(), self._task.cancel)

    def __iter__(self) -> _Reader:
        self._start()
        return _Reader(self)

    def __aiter__(self) -> _Reader:
        if self._sink is None:
            self._start_task()
        return _Reader(self)

    # The call.

    def _start(self) -> None:
        if self._sink is None:
            self._sink = Sink(self._push)
            work = copy_context().run
            threading.Thread(
                target=work, args=(self._work,), name="lazynb-stream", daemon=True
            ).start()

    def _start_task(self) -> None:
        self._sink = Sink(self._push)
        self._task = asyncio.get_running_loop().create_task(self._awork(self._sink))

    def _work(self) -> None:
        try:
            with collecting(self._sink or Sink(self._push)):
                value = self._call(*self._args, **self._kwargs)
        except BaseException as error:  # noqa: BLE001 - raised in the loop that reads
            self._end(None, error)
        else:
            self._end(value, None)

    async def _awork(self, sink: Sink) -> None:
        from lazynb.flow.arun import invoke

        try:
            with collecting(sink):
                value = await invoke(self._call, self._args, self._kwargs)
        except asyncio.CancelledError:
            self._end(None, CancelledError())
            raise
        except BaseException as error:  # noqa: BLE001 - raised in the loop that reads
            self._end(None, error)
        else:
            self._end(value, None)

    def _push(self, chunk: Chunk) -> None:
        with self._changed:
            self._streamed = True
            self._chunks.append(chunk)
            self._tell()

    def _end(self, value: Any, error: BaseException | None) -> None:
        with self._changed:
            if not self._streamed and isinstance(value, str) and value:
                self._chunks.append(value if isinstance(value, Chunk) else Chunk(value))
            self._value, self._error, self._ended = value, error, True
            self._tell()
        if self._sink is not None:
            self._sink.scope.leave()

    def _tell(self) -> None:
        self._changed.notify_all()
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def _next(self) -> Chunk | None:
        """Return the next chunk, or None at the end; the lock is held."""
        if self._chunks:
            return self._chunks.popleft()
        if self._error is not None:
            raise self._error
        return None


class _Reader:
    """An iterator whose end, or loss, ends the call."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> Chunk:
        stream = self._stream
        try:
            with stream._changed:
                while not stream._chunks and not stream._ended:
                    stream._changed.wait()
                chunk = stream._next()
        except BaseException:
            stream.cancel()
            raise
        if chunk is None:
            raise StopIteration
        return chunk

    def __aiter__(self) -> _Reader:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Chunk]:
        return self._anext()

    async def _anext(self) -> Chunk:
        stream = self._stream
        loop = asyncio.get_running_loop()
        try:
            while True:
                came = asyncio.Event()
                with stream._changed:
                    if stream._chunks or stream._ended:
                        chunk = stream._next()
                        break
                    stream._wake = partial(_soon, loop, came.set)
                await came.wait()
        except BaseException:
            stream.cancel()
            raise
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def __del__(self) -> None:
        if not self._stream._ended:
            self._stream.cancel()


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # a loop that was closed meanwhile waits for nothing
        loop.call_soon_threadsafe(callback)
