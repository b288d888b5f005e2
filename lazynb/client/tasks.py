"""One request, one result: a chat that is not streamed, embeddings, a ranking."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import TYPE_CHECKING, Any

import msgspec

from lazynb.client import failures, generate
from lazynb.client.requests import post
from lazynb.client.wire import Chunk
from lazynb.vectors import Embedding, Embeddings, Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.client.endpoint import Endpoint


async def chat(endpoint: Endpoint, messages: list[dict[str, Any]], **parameters: Any) -> str:
    """Return the text of the answer to some messages; errors as `post`."""
    timeout = parameters.pop("timeout", None)
    given = {name: value for name, value in parameters.items() if value is not None}
    body = {"messages": messages, **given}
    if endpoint.protocol == "vllm":
        return await generate.complete(endpoint, body, timeout)
    data = await post(endpoint, "/chat/completions", body, timeout)
    message = _read(endpoint, data, Chunk).choices
    if not message or message[0].message is None:
        raise failures.nonsense(endpoint, msgspec.json.encode(data))
    return message[0].message.content or ""


class _Vector(msgspec.Struct):
    embedding: list[float] | str
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]


async def embed(
    endpoint: Endpoint, texts: str | Sequence[str], **options: Any
) -> list[float] | list[list[float]]:
    """Return the embedding of a text, or those of several in their order; errors as `post`.

    They travel as base64, a third of their size as text; a server that knows only numbers sends those.
    """
    timeout = options.pop("timeout", None)
    several = not isinstance(texts, str)
    if several and not texts:
        return Embeddings()
    body = {"input": list(texts) if several else texts, "encoding_format": "base64", **options}
    answer = _read(endpoint, await post(endpoint, "/embeddings", body, timeout), _Vectors)
    ordered = sorted(answer.data, key=lambda item: item.index)
    vectors = [_numbers(endpoint, item.embedding) for item in ordered]
    if len(vectors) != (len(texts) if several else 1):
        message = f"{endpoint.name} sent {len(vectors)} embeddings, not as many as asked for"
        raise failures.failure(endpoint, message)
    return Embeddings(vectors, texts) if several else vectors[0]


def _numbers(endpoint: Endpoint, vector: list[float] | str) -> Embedding:
    """Read a vector: numbers, or little-endian 32-bit floats as base64."""
    if not isinstance(vector, str):
        return Embedding(vector)
    try:
        numbers = array("f", base64.b64decode(vector, validate=True))
    except ValueError:
        raise failures.nonsense(endpoint, vector.encode()) from None
    if sys.byteorder == "big":
        numbers.byteswap()
    return Embedding(numbers)


class _Rank(msgspec.Struct):
    index: int
    relevance_score: float


class _Ranks(msgspec.Struct):
    results: list[_Rank]


async def rerank(
    endpoint: Endpoint,
    query: str,
    documents: Sequence[str],
    top_n: int | None = None,
    **options: Any,
) -> list[tuple[int, float]]:
    """Return `(index, score)` of the documents, best first, `top_n` of them; errors as `post`."""
    timeout = options.pop("timeout", None)
    if not documents:
        return Ranking((), query, documents)
    body = {"query": query, "documents": list(documents), **options}
    if top_n is not None:
        body["top_n"] = top_n
    answer = _read(endpoint, await post(endpoint, "/rerank", body, timeout), _Ranks)
    best = sorted(answer.results, key=lambda item: -item.relevance_score)
    ranks = [(item.index, item.relevance_score) for item in best[:top_n]]
    return Ranking(ranks, query, documents)


def _read(endpoint: Endpoint, data: dict[str, Any], shape: type[Any]) -> Any:
    try:
        return msgspec.convert(data, shape)
    except msgspec.ValidationError:
        raise failures.nonsense(endpoint, msgspec.json.encode(data)) from None
