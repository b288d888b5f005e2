"""What lazynb asks of a server: JSON for JSON, and a streamed chat.

These are coroutines of the client's loop; `run` and `spawn` of `lazynb.client.loop` take them there.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from lazynb.client import activity, failures, generate
from lazynb.client.connection import request
from lazynb.client.wire import Delta, EventStream, NonsenseError
from lazynb.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lazynb.client.connection import Body
    from lazynb.client.endpoint import Endpoint

MODELS_TIMEOUT = 10.0  # seconds that a server may take to say what it serves
DRAIN = 0.5  # seconds that the end of a body may take after `[DONE]`

_models: dict[tuple[str, str], str] = {}  # what servers serve, by url and key
_without_usage: set[str] = set()  # urls of servers that refuse stream_options


async def get(endpoint: Endpoint, path: str, *, timeout: float | None = None) -> dict[str, Any]:
    """Fetch JSON from a route such as '/models'; errors as `post`."""
    return await _json(endpoint, "GET", path, None, timeout)


async def post(
    endpoint: Endpoint, path: str, body: dict[str, Any], timeout: float | None = None
) -> dict[str, Any]:
    """Send JSON to a route such as '/embeddings', and return the JSON of the answer.

    Parameters
    ----------
    endpoint : Endpoint
        The server; its model is named in the body unless the body names one.
    path : str
        The route below the endpoint's url.
    body : dict
        What is sent.
    timeout : float, optional
        Seconds without a byte after which the server counts as stuck; 600 by default.

    Raises
    ------
    ServiceError
        The server cannot be reached, refuses, fails, says nothing or answers nonsense.
    """
    return await _json(endpoint, "POST", path, await _named(endpoint, body, timeout), timeout)


async def stream_chat(
    endpoint: Endpoint, body: dict[str, Any], timeout: float | None = None
) -> AsyncGenerator[list[Delta], None]:
    """Send a chat and yield what arrives: a list of deltas for each read of the connection.

    `body` holds `messages` and generation parameters. Closing the iterator closes the connection,
    and the server stops. Errors as `post`; a stream that ends before its end is one.
    """
    if endpoint.protocol == "vllm":
        answer = generate.stream(endpoint, body, timeout)
    else:
        answer = _stream_openai(endpoint, await _named(endpoint, body, timeout), timeout)
    here = activity.of(endpoint.url)
    async with aclosing(answer):
        async for deltas in answer:
            here.add(len(deltas))
            yield deltas


async def model_of(endpoint: Endpoint, timeout: float | None = None) -> str:
    """Return the model's name on the wire; empty where a server has no list of models."""
    seconds = min(timeout or MODELS_TIMEOUT, MODELS_TIMEOUT)
    if endpoint.model or endpoint.protocol == "vllm":
        return endpoint.model
    known = (endpoint.url, endpoint.key)
    if known not in _models:
        try:
            listed = await get(endpoint, "/models", timeout=seconds)
        except ServiceError as error:
            if error.status not in (404, 405, 501):
                raise
            return ""
        try:
            _models[known] = listed["data"][0]["id"]
        except (LookupError, TypeError):
            return ""
    return _models[known]


async def _named(endpoint: Endpoint, body: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    model = await model_of(endpoint, timeout)
    return {"model": model, **body} if model else body


async def _json(
    endpoint: Endpoint, method: str, path: str, body: dict[str, Any] | None, timeout: float | None
) -> dict[str, Any]:
    try:
        async with request(endpoint, method, endpoint.route(path), body, timeout) as answer:
            data = await answer.read()
    except ServiceError as error:
        _forget_model(endpoint, error)
        raise
    try:
        answered = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError:
        raise failures.nonsense(endpoint, data) from None
    usage = answered.get("usage")
    made = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if isinstance(made, int):
        activity.of(endpoint.url).add(made)
    return answered


def _forget_model(endpoint: Endpoint, error: ServiceError) -> None:
    """Ask for the model again after a 404: another one may be served there now."""
    if error.status == 404:  # noqa: PLR2004
        _models.pop((endpoint.url, endpoint.key), None)


async def _stream_openai(
    endpoint: Endpoint, body: dict[str, Any], timeout: float | None
) -> AsyncGenerator[list[Delta], None]:
    """Ask for the usage as well, and once more without where a server refuses that."""
    usage = {} if endpoint.url in _without_usage else {"stream_options": {"include_usage": True}}
    while True:
        try:
            sent = {**body, "stream": True, **usage}
            async with aclosing(_events(endpoint, sent, timeout)) as events:
                async for deltas in events:
                    yield deltas
        except ServiceError as error:
            _forget_model(endpoint, error)
            refused = error.status in (400, 422) and "stream_options" in error.message
            if not usage or not refused:
                raise
            _without_usage.add(endpoint.url)
            usage = {}
        else:
            return


async def _events(
    endpoint: Endpoint, body: dict[str, Any], timeout: float | None
) -> AsyncGenerator[list[Delta], None]:
    stream = EventStream()
    url = endpoint.route("/chat/completions")
    async with request(endpoint, "POST", url, body, timeout) as answer:
        async with aclosing(answer.pieces()) as pieces:
            async for data in pieces:
                if deltas := stream.feed(data):
                    yield deltas
                _check(endpoint, stream)
                if stream.ended:
                    break
        if stream.ended:
            await _drain(answer)
            return
    if deltas := stream.finish():
        yield deltas
    _check(endpoint, stream)
    if not stream.done:
        raise failures.cut(endpoint)


def _check(endpoint: Endpoint, stream: EventStream) -> None:
    if stream.failure is not None:
        said = stream.failure.args[0]
        nonsense = isinstance(stream.failure, NonsenseError)
        raise (failures.nonsense if nonsense else failures.broken)(endpoint, said)


async def _drain(answer: Body) -> None:
    """Read the end of the body, so that the connection can be used again; some never send it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN):
            await answer.read()
