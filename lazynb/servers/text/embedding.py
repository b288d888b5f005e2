"""Embedding and rerank models as a service: `/v1/embeddings` and `/v1/rerank` over sentence-transformers.

One thread computes. What arrives while it works is computed together next: nobody waits for a batch to fill, and
many small requests are as fast as one large one. A large request is cut into pieces so that others get their turn.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web
from process import die_with_parent, progress
from serving import RequestError, read, serve, take

if TYPE_CHECKING:
    from collections.abc import Callable

    Items = list[Any]

PIECE = 256
"""Items computed at once: enough for the library to sort them by length."""


class Batcher:
    """Computes items in batches that are made of all requests that wait.

    Parameters
    ----------
    compute : callable
        Takes a list of items and returns a list of as many results.
    """

    def __init__(self, compute: Callable[[Items], Items]) -> None:
        self._compute = compute
        self._waiting: list[tuple[Items, asyncio.Future[Items]]] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, items: Items) -> Items:
        """Return the results for some items; a caller who leaves takes what was not begun along."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        loop = asyncio.get_running_loop()
        pieces = []
        for start in range(0, len(items), PIECE):
            future: asyncio.Future[Items] = loop.create_future()
            pieces.append(future)
            self._waiting.append((items[start : start + PIECE], future))
        self._wake.set()
        try:
            return [result for piece in pieces for result in await piece]
        finally:
            for piece in pieces:
                piece.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            batch: list[tuple[Items, asyncio.Future[Items]]] = []
            count = 0
            while self._waiting and (not batch or count + len(self._waiting[0][0]) <= PIECE):
                items, future = self._waiting.pop(0)
                if not future.done():
                    batch.append((items, future))
                    count += len(items)
            if not self._waiting:
                self._wake.clear()
            if batch:
                flat = [item for items, _ in batch for item in items]
                await self._answer(batch, loop.run_in_executor(self._thread, self._compute, flat))

    async def _answer(
        self, batch: list[tuple[Items, asyncio.Future[Items]]], computing: asyncio.Future[Items]
    ) -> None:
        try:
            results = iter(await computing)
        except Exception as error:  # noqa: BLE001  those who asked get it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for items, future in batch:
            own = [next(results) for _ in items]
            if not future.done():
                future.set_result(own)


def embedder(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load an embedding model and return its routes."""
    from sentence_transformers import SentenceTransformer

    options = arguments.options
    model = SentenceTransformer(arguments.model, **_settings(options))
    if options.get("max_seq_length"):
        model.max_seq_length = options["max_seq_length"]
    batch = Batcher(partial(_encode, model, options.get("batch_size", 32)))

    async def embeddings(request: web.Request) -> web.StreamResponse:
        body = await read(request)
        texts = _texts(body, model.tokenizer)
        encoding = take(body, "encoding_format", str, "float")
        if encoding not in ("float", "base64"):
            raise RequestError("encoding_format must be 'float' or 'base64'")
        dimensions, width = take(body, "dimensions", int), model.get_embedding_dimension()
        if dimensions is not None and not 0 < dimensions <= width:
            raise RequestError(f"dimensions must be between 1 and {width}")
        prompt = take(body, "prompt_name", str)
        if prompt is not None and prompt not in model.prompts:
            raise RequestError(f"The model has no prompt {prompt!r}, but {list(model.prompts)}")
        results = await batch([(text, prompt) for text in texts])
        vectors = [_wire(vector, encoding, dimensions) for vector, _ in results]
        tokens = sum(count for _, count in results)
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(vectors)
            ],
            "model": arguments.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return web.Response(body=_json(answer), content_type="application/json")

    return {"/v1/embeddings": embeddings}


def _encode(model: Any, size: int, items: Items) -> Items:
    """Return the vector of each (text, name of its prompt), and how many tokens it took."""
    import numpy as np

    results: Items = [None] * len(items)
    longest = model.max_seq_length
    for prompt in {prompt for _, prompt in items}:
        chosen = [i for i, item in enumerate(items) if item[1] == prompt]
        texts = [items[i][0] for i in chosen]
        vectors = model.encode(texts, batch_size=size, prompt_name=prompt, show_progress_bar=False)
        for i, vector, ids in zip(
            chosen, vectors, model.tokenizer(texts)["input_ids"], strict=True
        ):
            results[i] = (vector.astype(np.float32), min(len(ids), longest or len(ids)))
    return results


def _wire(vector: Any, encoding: str, dimensions: int | None) -> str | list[float]:
    """Return a vector as it is sent; one that is cut short gets the length 1 again."""
    if dimensions:
        vector = vector[:dimensions]
        vector = vector / max(float((vector**2).sum()) ** 0.5, 1e-12)
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers


def reranker(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load a cross-encoder and return its routes."""
    from sentence_transformers import CrossEncoder

    options = arguments.options
    model = CrossEncoder(
        arguments.model, max_length=options.get("max_seq_length"), **_settings(options)
    )
    size = options.get("batch_size", 32)
    # A fresh or foreign tokenizer may have no padding token, and a batch needs one.
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token

    def compute(pairs: Items) -> Items:
        scores = model.predict(pairs, batch_size=size, show_progress_bar=False)
        return [float(score) for score in scores.reshape(-1)]

    batch = Batcher(compute)

    async def rerank(request: web.Request) -> web.StreamResponse:
        body = await read(request)
        query = take(body, "query", str)
        documents = take(body, "documents", list)
        if query is None or not documents:
            raise RequestError("query and documents are needed")
        texts = [item.get("text") if isinstance(item, dict) else item for item in documents]
        if not all(isinstance(text, str) for text in texts):
            raise RequestError("documents must be texts, or objects with a text")
        top = take(body, "top_n", int, len(texts))
        if top < 1:
            raise RequestError("top_n must be 1 or more")
        scores = await batch([(query, text) for text in texts])
        best = sorted(range(len(texts)), key=lambda i: -scores[i])[:top]
        results: list[dict[str, Any]] = [{"index": i, "relevance_score": scores[i]} for i in best]
        if take(body, "return_documents", bool, False):
            for result in results:
                result["document"] = {"text": texts[result["index"]]}
        return web.json_response({"object": "list", "model": arguments.name, "results": results})

    return {"/v1/rerank": rerank, "/rerank": rerank, "/v2/rerank": rerank}


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    dtype = {"model_kwargs": {"dtype": options["dtype"]}} if options.get("dtype") else {}
    return {
        "device": options.get("device"),
        "trust_remote_code": options.get("trust_remote_code", False),
        "local_files_only": True,
        **dtype,
    }


def _texts(body: dict[str, Any], tokenizer: Any) -> list[str]:
    """Return what is to be embedded: a text, several, or their tokens, as the OpenAI API has it."""
    given = take(body, "input", (str, list))
    if isinstance(given, str) or (
        given and all(isinstance(item, int) and not isinstance(item, bool) for item in given)
    ):
        given = [given]
    if not given:
        raise RequestError("input is needed: a text or a list of texts")
    texts = []
    for item in given:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, list) and all(isinstance(token, int) for token in item):
            texts.append(tokenizer.decode(item, skip_special_tokens=True))
        else:
            raise RequestError("input must be a text or a list of texts")
    return texts


def _json(answer: dict[str, Any]) -> bytes:
    with contextlib.suppress(ImportError):
        import orjson

        return bytes(orjson.dumps(answer))
    return json.dumps(answer).encode()


def main() -> None:
    """Serve one model until a signal ends it."""
    die_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=("embed", "rerank"), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--options", type=json.loads, default={})
    arguments = parser.parse_args()
    progress("loading the libraries")
    import torch

    if threads := arguments.options.get("n_threads"):
        torch.set_num_threads(threads)
    progress("loading the weights")
    routes = embedder(arguments) if arguments.task == "embed" else reranker(arguments)
    serve(arguments.name, arguments.port, routes)


if __name__ == "__main__":
    main()
