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
from lazynb.errors import OptionError
from lazynb.vectors import Embedding, Embeddings, Ranking, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.client.endpoint import Endpoint

KINDS = ("dense", "sparse", "multi")


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


class _Sparse(msgspec.Struct):
    indices: list[int]
    values: list[float]
    tokens: list[str] = []


class _Vector(msgspec.Struct):
    embedding: list[float] | str | None = None
    index: int = 0
    sparse: _Sparse | None = None
    multi: list[list[float] | str] | None = None


class _Vectors(msgspec.Struct):
    data: list[_Vector]


async def embed(
    endpoint: Endpoint,
    texts: str | Sequence[str],
    kinds: str | Sequence[str] | None = None,
    **options: Any,
) -> Any:
    """Return the embedding of a text, or those of several in their order; errors as `post`.

    They travel as base64, a third of their size as text; a server that knows only numbers sends those.

    Parameters
    ----------
    endpoint : Endpoint
        The server.
    texts : str or list of str
        What is embedded.
    kinds : list of str, optional
        What is returned of each text: 'dense', 'sparse' (token id → weight), 'multi' (a vector for each token).
    **options
        Other fields of the request; `timeout`, in seconds, is `post`'s.

    Returns
    -------
    list of float
        For a text; a list of as many for several. With `kinds`, a dict by kind in place of each.
    """
    timeout = options.pop("timeout", None)
    several = not isinstance(texts, str)
    if several and not texts:
        return [] if kinds else Embeddings()
    body = {"input": list(texts) if several else texts, "encoding_format": "base64", **options}
    if kinds is not None:
        body["kinds"] = kinds = _checked([kinds] if isinstance(kinds, str) else list(kinds))
    answer = _read(endpoint, await post(endpoint, "/embeddings", body, timeout), _Vectors)
    ordered = sorted(answer.data, key=lambda item: item.index)
    if len(ordered) != (len(texts) if several else 1):
        message = f"{endpoint.name} sent {len(ordered)} embeddings, not as many as asked for"
        raise failures.failure(endpoint, message)
    if kinds is not None:
        made = [{kind: _embedding(endpoint, item, kind) for kind in kinds} for item in ordered]
        return made if several else made[0]
    vectors: list[Any] = [_embedding(endpoint, item, "dense") for item in ordered]
    return Embeddings(vectors, texts) if several else vectors[0]


def _checked(kinds: list[str]) -> list[str]:
    if kinds and set(kinds) <= set(KINDS):
        return kinds
    raise OptionError(
        f"There are no embeddings of {kinds}", hint=f"kinds: some of {', '.join(KINDS)}."
    )


def _embedding(
    endpoint: Endpoint, item: _Vector, kind: str
) -> Embedding | Weights | list[Embedding]:
    if kind == "sparse" and item.sparse is not None:
        return Weights(
            zip(item.sparse.indices, item.sparse.values, strict=False), item.sparse.tokens
        )
    if kind == "multi" and item.multi is not None:
        return [_numbers(endpoint, vector) for vector in item.multi]
    if kind == "dense" and item.embedding is not None:
        return _numbers(endpoint, item.embedding)
    raise failures.failure(endpoint, f"{endpoint.name} sent no {kind} embedding")


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
