"""An answer: live while it is made, complete afterwards.

The client's event loop writes what arrives into the answer, once for each read of the connection.
Threads and tasks read it: they iterate over its chunks (`lazynb.client.live`), ask what is new
since a character (`lazynb.client.transcript`), or wait for its end.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, Self

from lazynb.client.live import Live
from lazynb.client.loop import get_loop, spawn
from lazynb.client.parameters import GENERATION_PARAMETERS, check_parameters
from lazynb.client.transcript import Timings, Transcript
from lazynb.client.wire import Usage, join_tool_calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from concurrent.futures import Future

    from lazynb.client.endpoint import Endpoint
    from lazynb.client.wire import Delta

__all__ = ["GENERATION_PARAMETERS", "Answer", "Timings", "Usage", "ask", "check_parameters"]

Status = Literal["waiting", "streaming", "done", "cancelled", "failed"]
Kind = Literal["text", "reasoning"]


class Answer(Live):
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
        super().__init__()
        self.id = secrets.token_hex(4)
        self.model = params.get("model") or model
        self.service = model
        self.messages = messages
        self.params = {name: value for name, value in params.items() if value is not None}
        self.status: Status = "waiting"
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.timings = Timings(queued=time.time())
        self._text = Transcript()
        self._reasoning = Transcript()
        self._parts: list[tuple[Kind, str]] = []  # both, in the order in which they came
        self._tool_calls: list[dict[str, Any]] = []
        self._latest = 0.0
        self._future: Future[None] | None = None

    @classmethod
    def pending(cls, model: str, messages: list[dict[str, Any]], /, **params: Any) -> Self:
        """Make an answer whose request is not sent yet, because its service still starts.

        `begin` sends it, `fail` ends it without, and it can be cancelled meanwhile.
        """
        return cls(model, messages, params)

    def begin(self, endpoint: Endpoint) -> Self:
        """Send the request; returns at once. Only the first call counts, none once it is over."""
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

    # Reading it as it comes.

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

    # The writing side, on the client's loop.

    async def _read(self, endpoint: Endpoint) -> None:
        from lazynb.client.requests import model_of, stream_chat  # imports the HTTP library

        params = dict(self.params)
        timeout = params.pop("timeout", None)
        body = {"messages": self.messages, **params}
        try:
            self.model = self.model or await model_of(endpoint, timeout) or endpoint.name
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
            sleepers = self._sleepers()
        self._wake(sleepers)
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
            sleepers = self._sleepers()
        self._over.set()
        self._wake(sleepers)
        if self._subscribers:
            get_loop().call_soon_threadsafe(self._tell)


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
