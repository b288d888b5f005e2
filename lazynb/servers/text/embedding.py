"""Embedding and rerank models as a service: `/v1/embeddings` and `/v1/rerank` over sentence-transformers.

Beside the OpenAI API's fields, `"kinds": ["dense", "sparse", "multi"]` asks for what models like BGE-M3 have.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web
from batching import Batcher, batches
from heads import FILES, Heads
from process import die_with_parent, progress
from serving import RequestError, read, serve, take
from threads import no_pool

if TYPE_CHECKING:
    Items = list[Any]


def embedder(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load an embedding model and return its routes."""
    from sentence_transformers import SentenceTransformer

    options = arguments.options
    model = SentenceTransformer(arguments.model, **_settings(options))
    if options.get("max_seq_length"):
        model.max_seq_length = options["max_seq_length"]
    heads = Heads(arguments.model, model)
    size = options.get("batch_size", 32)
    batch = Batcher(
        lambda items: _encode(model, heads, size, items), lambda item: len(item[0]), 2 * size
    )

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
        kinds = _kinds(body, heads)
        results = await batch([(text, prompt, kinds) for text in texts])
        tokens = sum(result["tokens"] for result in results)
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, **_wire(result, encoding, dimensions)}
                for index, result in enumerate(results)
            ],
            "model": arguments.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return web.Response(body=_json(answer), content_type="application/json")

    return {"/v1/embeddings": embeddings}


def _kinds(body: dict[str, Any], heads: Heads) -> tuple[str, ...]:
    kinds = take(body, "kinds", list, ["dense"])
    for kind in kinds:
        if kind not in ("dense", *FILES):
            raise RequestError(f"kinds must be of 'dense', 'sparse' and 'multi', not {kind!r}")
        if kind not in heads.kinds:
            raise RequestError(
                f"The model gives no {kind} embeddings: it has no {FILES[kind]}. It gives {', '.join(heads.kinds)}"
            )
    if not kinds:
        raise RequestError("kinds is empty")
    return tuple(kinds)


def _encode(model: Any, heads: Heads, size: int, items: Items) -> Items:
    """Return for each (text, name of its prompt, kinds) its embeddings, and how many tokens it took."""
    import torch

    results: Items = [None] * len(items)
    for prompt, kinds in {item[1:] for item in items}:
        chosen = [i for i, item in enumerate(items) if item[1:] == (prompt, kinds)]
        lengths = [len(items[i][0]) for i in chosen]
        for batch in batches(lengths, size, cheap=model.device.type == "cpu"):
            places = [chosen[i] for i in batch]
            texts = [items[i][0] for i in places]
            outputs = model.encode(
                texts,
                batch_size=size,
                prompt_name=prompt,
                output_value=None,
                show_progress_bar=False,
            )
            counts = torch.stack([text["attention_mask"] for text in outputs]).sum(1).tolist()
            dense = (
                torch.stack([text["sentence_embedding"] for text in outputs]).float().cpu().numpy()
            )
            for i, text, tokens, vector in zip(places, outputs, counts, dense, strict=True):
                results[i] = {"tokens": tokens, "dense": vector if "dense" in kinds else None}
                with torch.inference_mode():
                    results[i] |= {
                        kind: getattr(heads, kind)(text, tokens) for kind in FILES if kind in kinds
                    }
    return results


def _wire(result: dict[str, Any], encoding: str, dimensions: int | None) -> dict[str, Any]:
    """Return the embeddings of a text as they are sent; a vector that is cut short gets the length 1 again."""
    vector = result["dense"]
    if dimensions and vector is not None:
        vector = vector[:dimensions]
        vector = vector / max(float((vector**2).sum()) ** 0.5, 1e-12)
    sent: dict[str, Any] = {"embedding": [] if vector is None else _numbers(vector, encoding)}
    if "sparse" in result:
        sent["sparse"] = result["sparse"]
    if "multi" in result:
        sent["multi"] = [_numbers(vector, encoding) for vector in result["multi"]]
    return sent


def _numbers(vector: Any, encoding: str) -> str | list[float]:
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

    batch = Batcher(lambda pairs: _score(model, size, pairs), _letters, 2 * size)

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


def _score(model: Any, size: int, pairs: Items) -> Items:
    scores = [0.0] * len(pairs)
    for batch in batches(list(map(_letters, pairs)), size, cheap=model.device.type == "cpu"):
        found = model.predict([pairs[i] for i in batch], batch_size=size, show_progress_bar=False)
        for i, score in zip(batch, found.reshape(-1).tolist(), strict=True):
            scores[i] = score
    return scores


def _letters(pair: tuple[str, str]) -> int:
    return len(pair[0]) + len(pair[1])


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
    with no_pool(arguments.options.get("n_threads")):
        progress("loading the weights")
        routes = embedder(arguments) if arguments.task == "embed" else reranker(arguments)
    serve(arguments.name, arguments.port, routes)


if __name__ == "__main__":
    main()
