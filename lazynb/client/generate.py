"""The `/generate` route of old versions of vLLM.

It takes a prompt as plain text and answers with the prompt and the text after it, all of it again
in each piece of a stream (JSON objects with a NUL or a newline between them). No chat template is
applied on either side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lazynb.client import failures
from lazynb.client.connection import request
from lazynb.client.wire import Delta

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lazynb.client.endpoint import Endpoint

MAX_TOKENS = 1024  # the route's own default of 16 cuts every answer


class _Output(msgspec.Struct):
    text: list[str]


_decode = msgspec.json.Decoder(_Output).decode


async def stream(
    endpoint: Endpoint, body: dict[str, Any], timeout: float | None
) -> AsyncGenerator[list[Delta], None]:
    """Send a chat and yield what is new in each piece."""
    sent = _sent(body)
    prompt, known, rest = sent["prompt"], None, b""
    async with request(endpoint, "POST", endpoint.url, {**sent, "stream": True}, timeout) as answer:
        async for data in answer.pieces():
            *pieces, rest = (rest + data).replace(b"\n", b"\0").split(b"\0")
            if full := [piece for piece in pieces if piece.strip()]:
                text = _text(endpoint, full[-1], prompt)  # it holds the earlier ones
                yield [Delta(text[len(known or prompt) :])]
                known = text
    if rest.strip() or known is None:
        yield [Delta(_text(endpoint, rest, prompt)[len(known or prompt) :])]


async def complete(endpoint: Endpoint, body: dict[str, Any], timeout: float | None) -> str:
    """Send a chat and return the text of the answer."""
    sent = _sent(body)
    async with request(endpoint, "POST", endpoint.url, sent, timeout) as answer:
        data = await answer.read()
    return _text(endpoint, data, sent["prompt"])[len(sent["prompt"]) :]


def _sent(body: dict[str, Any]) -> dict[str, Any]:
    parameters = {"max_tokens": MAX_TOKENS, **body}
    longest = parameters.pop("max_completion_tokens", None)
    if longest is not None:
        parameters["max_tokens"] = longest
    return {"prompt": _prompt(parameters.pop("messages")), **parameters}


def _prompt(messages: list[dict[str, Any]]) -> str:
    """One message goes as it is; several as a plain dialogue, since the route knows no roles."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    turns = [f"{message['role']}: {message['content']}" for message in messages]
    return "\n".join([*turns, "assistant:"])


def _text(endpoint: Endpoint, data: bytes, prompt: str) -> str:
    """Return prompt and text; servers that leave the prompt away get it back."""
    try:
        text = _decode(data).text[0]
    except (msgspec.DecodeError, LookupError):
        raise failures.nonsense(endpoint, data) from None
    return text if text.startswith(prompt) else prompt + text
