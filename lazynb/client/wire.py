"""The bytes of a streamed answer, as deltas.

The OpenAI API streams server-sent events: one `data:` line of JSON each. `EventStream` takes the
bytes as the network cuts them, anywhere, and gives what is complete. It works on bytes, so a cut
inside a character is not seen, and it looks at no more of an event than is used: msgspec skips
unknown fields.
"""

from __future__ import annotations

from typing import Any

import msgspec

HEAD = 1_048_576  # bytes kept of an answer that has no events, to say what it was


class Usage(msgspec.Struct, frozen=True):
    """What a request cost, in tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Delta(msgspec.Struct):
    """What one event adds to an answer."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    tool_calls: list[dict[str, Any]] | None = None
    """Pieces of tool calls, as they came."""


class Message(msgspec.Struct):
    """The part of a choice that holds text: a delta, or the message of a whole answer."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct):
    """One of the answers to a request; lazynb asks for one."""

    index: int = 0
    delta: Message | None = None
    message: Message | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """One event, or a whole answer that was not streamed."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None
    object: str | None = None


_decode = msgspec.json.Decoder(Chunk).decode


class StreamError(Exception):
    """The server reported an error in the stream; `args[0]` is what it sent."""


class NonsenseError(Exception):
    """The server sent what is not of the API; `args[0]` is what it sent."""


def to_delta(data: bytes) -> Delta | None:
    """Read one event.

    Raises
    ------
    StreamError
        It is an error object.
    NonsenseError
        It is not what the OpenAI API sends.
    """
    try:
        chunk = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NonsenseError(data) from None
    if chunk.error is not None or chunk.object == "error":
        raise StreamError(data)
    for choice in chunk.choices:
        if choice.index == 0:
            part = choice.delta or choice.message or Message()
            return Delta(
                part.content or "",
                part.reasoning_content or part.reasoning or "",
                choice.finish_reason,
                chunk.usage,
                part.tool_calls,
            )
    return Delta(usage=chunk.usage) if chunk.usage else None


def join_tool_calls(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put tool calls together: the pieces of one call share an index."""
    calls: dict[int, dict[str, Any]] = {}
    for position, piece in enumerate(pieces):
        call = calls.setdefault(piece.get("index", position), {"type": "function", "function": {}})
        new = piece.get("function") or {}
        call.update({key: piece[key] for key in ("id", "type") if piece.get(key)})
        known = call["function"]
        known["name"] = new.get("name") or known.get("name", "")
        known["arguments"] = known.get("arguments", "") + (new.get("arguments") or "")
    return list(calls.values())


class EventStream:
    """Server-sent events, put together from pieces of any size.

    Attributes
    ----------
    done : bool
        Whether the answer is complete: `[DONE]`, or a reason why it ended, was seen.
    ended : bool
        Whether `[DONE]` was seen, and nothing more comes.
    failure : StreamError, NonsenseError or None
        What is wrong with the event after those that were returned.
    """

    def __init__(self) -> None:
        self.done = False
        self.ended = False
        self.failure: StreamError | NonsenseError | None = None
        self._events = 0
        self._head = b""  # of an answer that has no events, and is perhaps something else
        self._rest = b""

    def feed(self, data: bytes) -> list[Delta]:
        """Take bytes, and return what is complete."""
        if not self._events and len(self._head) < HEAD:
            self._head += data
        if b"\n" not in data:
            self._rest += data
            return []
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        deltas: list[Delta] = []
        try:
            for line in lines:
                self._read(line, deltas)
        except (StreamError, NonsenseError) as error:
            self.failure = error
        return deltas

    def finish(self) -> list[Delta]:
        """Take the end: a last line without a newline, or a whole answer in one."""
        if self._events or self._rest.startswith(b"data:"):
            return self.feed(b"\n") if self._rest else []
        deltas: list[Delta] = []
        try:
            self._add(self._head, deltas)
            if not deltas:
                raise NonsenseError(self._head)  # noqa: TRY301
        except (StreamError, NonsenseError) as error:
            self.failure = error
        self.done = True
        return deltas

    def _read(self, line: bytes, deltas: list[Delta]) -> None:
        if line.startswith(b"data:"):
            self._events += 1
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self.done = self.ended = True
            elif payload:
                self._add(payload, deltas)
        elif line.startswith(b"error:"):  # llama.cpp before it spoke the API's own errors
            raise StreamError(line[6:].strip())

    def _add(self, payload: bytes, deltas: list[Delta]) -> None:
        delta = to_delta(payload)
        if delta is not None:
            self.done = self.done or delta.finish_reason is not None
            deltas.append(delta)
