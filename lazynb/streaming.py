"""An answer: live while it is made, complete afterwards.

The client's event loop writes what arrives into the answer, once for each read of the connection;
any number of threads and tasks read it, each from where it is. Text is kept as the chunks that
came with the offsets at which they end, so that "what is new since character 4,000" costs what is
new. A reader that has caught up leaves a one-shot wake-up behind and sleeps; nobody is woken who
does not wait.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from bisect import bisect_right
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import msgspec

from lazynb.client.loop import get_loop, spawn
from lazynb.client.parameters import GENERATION_PARAMETERS, check_parameters
from lazynb.client.wire import Usage, join_tool_calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from concurrent.futures import Future

    from lazynb.client.endpoint import Endpoint
    from lazynb.client.wire import Delta

__all__ = ["GENERATION_PARAMETERS", "Answer", "Timings", "Usage", "ask", "check_parameters"]

Status = Literal["waiting", "streaming", "done", "cancelled", "failed"]
Kind = Literal["text", "reasoning"]
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Timings(msgspec.Struct):
    """When things happened, in seconds since the epoch; None: not yet."""

    queued: float
    """The request was sent, or, before that, the answer was made."""
    first_token: float | None = None
    finished: float | None = None

    @property
    def seconds(self) -> float:
        """From the request to the end, or to now."""
        return (self.finished or time.time()) - self.queued


class Transcript:
    """A text that grows: its chunks, and the offset at which each ends."""

    def __init__(self) -> None:
        self.chunks: list[str] = []
        self._ends: list[int] = []
        self._joined = ("", 0)  # the text of the first so many chunks

    def append(self, chunk: str) -> None:
        """Add a chunk; one thread does, any thread may read meanwhile."""
        self.chunks.append(chunk)
        self._ends.append(self.size + len(chunk))

    @property
    def size(self) -> int:
        """Characters so far."""
        return self._ends[-1] if self._ends else 0

    @property
    def text(self) -> str:
        """All of it."""
        text, count = self._joined
        if count < len(self.chunks):
            new = self.chunks[count:]
            text, count = text + "".join(new), count + len(new)
            self._joined = text, count
        return text

    def since(self, offset: int) -> str:
        """Return the text from a character on."""
        first = bisect_right(self._ends, offset)
        new = self.chunks[first:]
        if not new:
            return ""
        start = self._ends[first - 1] if first else 0
        new[0] = new[0][offset - start :]
        return "".join(new)


class Answer:
    """One answer of a model.

    Iterating, with `for` or `async for`, yields its text in chunks as they arrive; leaving the
    loop early cancels the request, unless somebody else still iterates. `str(answer)` is its
    text.

    Attributes
    ----------
    id : str
        Short and unique.
    model, service : str
        The model's name, and what the server is called.
    messages : list of dict
        What was sent.
    params : dict
        The generation parameters.
    status : {'waiting', 'streaming', 'done', 'cancelled', 'failed'}
        How it stands. What arrived before a failure or a cancellation is kept.
    error : Exception or None
        What went wrong.
    finish_reason : str or None
        Why it ended: 'stop', 'length', …
    usage : Usage or None
        Tokens as the server counted them.
    timings : Timings
        When it was asked for, began and ended.
    """

    def __init__(self, model: str, messages: list[dict[str, Any]], params: dict[str, Any]) -> None:
        check_parameters(params)
        self.id = secrets.token_hex(4)
        self.model = model
        self.service = model
        self.messages = messages
        self.params = {name: value for name, value in params.items() if value is not None}
        self.status: Status = "waiting"
        self.error: Exception | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.timings = Timings(queued=time.time())
        self._text = Transcript()
        self._reasoning = Transcript()
        self._parts: list[tuple[Kind, str]] = []  # both, in the order in which they came
        self._tool_calls: list[dict[str, Any]] = []
        self._latest = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._waiters: list[Callable[[], object]] = []
        self._subscribers: list[Callable[[], None]] = []
        self._readers = 0
        self._future: Future[None] | None = None

    @classmethod
    def pending(cls, model: str, messages: list[dict[str, Any]], **params: Any) -> Self:
        """Make an answer whose request is not sent yet, because its service still starts.

        `begin` sends it, `fail` ends it without, and it can be cancelled meanwhile.
        """
        return cls(model, messages, params)

    def begin(self, endpoint: Endpoint) -> Self:
        """Send the request; returns at once. Does nothing once it was sent or the answer is over."""
        with self._lock:
            if self._future is None and not self.done:
                self.service = endpoint.name
                self.timings.queued = time.time()
                self._future = spawn(self._read(endpoint))
        return self

    def fail(self, error: Exception) -> None:
        """End the answer with an error."""
        self._finish("failed", error)

    def cancel(self) -> None:
        """End the answer, from any thread: the connection is closed, and the server stops."""
        self._finish("cancelled")
        if self._future is not None:
            self._future.cancel()

    # What there is so far.

    @property
    def text(self) -> str:
        """The text so far."""
        return self._text.text

    @property
    def reasoning(self) -> str:
        """What a reasoning model thought so far."""
        return self._reasoning.text

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls that the model asks for, as the OpenAI API writes them."""
        return join_tool_calls(self._tool_calls)

    @property
    def size(self) -> int:
        """Characters of text so far."""
        return self._text.size

    def since(self, offset: int, kind: Kind = "text") -> str:
        """Return the text from a character on; costs what is new, not what there is.

        Parameters
        ----------
        offset : int
            Characters that the caller has.
        kind : {'text', 'reasoning'}
            Which of the two is meant.
        """
        return (self._text if kind == "text" else self._reasoning).since(offset)

    @property
    def done(self) -> bool:
        """Whether it is over, in whatever way."""
        return self.status in ("done", "cancelled", "failed")

    @property
    def tokens(self) -> int:
        """Tokens made: as the server counted them, until then the chunks that came."""
        return self.usage.completion_tokens if self.usage else len(self._parts)

    @property
    def seconds(self) -> float:
        """Seconds from the request to the end, or to now."""
        return self.timings.seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Rate from the first token to the last; None before there are two."""
        first, tokens = self.timings.first_token, self.tokens
        if first is None or tokens < 2 or self._latest <= first:  # noqa: PLR2004
            return None
        return (tokens - 1) / (self._latest - first)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Answer {self.id} of {self.service}: {self.status}, {self.tokens} tokens>"

    # Waiting for more.

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

    def __iter__(self) -> Iterator[str]:
        return self._follow(self._text.chunks)

    def __aiter__(self) -> AsyncIterator[str]:
        return self._afollow(self._text.chunks)

    def parts(self) -> Iterator[tuple[Kind, str]]:
        """Iterate over `(kind, chunk)`, the reasoning included."""
        return self._follow(self._parts)

    def aparts(self) -> AsyncIterator[tuple[Kind, str]]:
        """Iterate over `(kind, chunk)` with `async for`."""
        return self._afollow(self._parts)

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
                news = threading.Event()
                if self._wake_later(items, seen, news.set):
                    news.wait()
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

    # The writing side, on the client's loop.

    async def _read(self, endpoint: Endpoint) -> None:
        from lazynb.client.requests import model_of, stream_chat  # imports the HTTP library

        params = dict(self.params)
        timeout = params.pop("timeout", None)
        body = {"messages": self.messages, **params}
        try:
            self.model = self.model or await model_of(endpoint) or endpoint.name
            async with aclosing(stream_chat(endpoint, body, timeout)) as stream:
                async for deltas in stream:
                    if not self._take(deltas):
                        return
            self._finish("done")
        except asyncio.CancelledError:
            self._finish("cancelled")
            raise
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is read
            self._finish("failed", error)

    def _take(self, deltas: list[Delta]) -> bool:
        """Write down what one read of the connection brought; False when nobody wants it."""
        with self._lock:
            if self.done:
                return False
            for delta in deltas:
                self._append(delta)
            if self._parts:
                self._latest = time.time()
                if self.status == "waiting":
                    self.status, self.timings.first_token = "streaming", self._latest
            waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()
        self._tell()
        return True

    def _append(self, delta: Delta) -> None:
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
            self._parts.append(("reasoning", delta.reasoning))
        if delta.text:
            self._text.append(delta.text)
            self._parts.append(("text", delta.text))
        if delta.finish_reason:
            self.finish_reason = delta.finish_reason
        if delta.usage:
            self.usage = delta.usage
        if delta.tool_calls:
            self._tool_calls += delta.tool_calls

    def _finish(self, status: Status, error: Exception | None = None) -> None:
        with self._lock:
            if self.done:
                return
            self.error = error
            self.timings.finished = time.time()
            self.status = status
            waiters, self._waiters = self._waiters, []
        self._over.set()
        for wake in waiters:
            wake()
        if self._subscribers:
            get_loop().call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback()
            except Exception:  # noqa: BLE001 - a view must not end the answer
                _log.exception("A view of answer %s failed", self.id)


def _set_in(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    with suppress(RuntimeError):  # that loop is closed: nobody waits there
        loop.call_soon_threadsafe(news.set)


def ask(endpoint: Endpoint, messages: list[dict[str, Any]], **params: Any) -> Answer:
    """Send messages to a model, and return its answer while it is made.

    Parameters
    ----------
    endpoint : Endpoint
        Where the model is served.
    messages : list of dict
        As the OpenAI API writes them.
    **params
        Generation parameters under their OpenAI names; `timeout`: seconds that the server may say
        nothing.

    Raises
    ------
    OptionError
        A parameter does not exist or has another type. What goes wrong later is raised by the
        answer.
    """
    return Answer.pending(endpoint.model, messages, **params).begin(endpoint)
