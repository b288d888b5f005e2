"""A chat model on transformers as a service: `/v1/chat/completions` over its continuous batching.

What `transformers serve` leaves open: a key, `[DONE]`, the usage, the model's name, an end when the client leaves, and
a cache that fits a laptop. All requests run in one batch that they join and leave at any token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
import uuid
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from launch import full_precision
from process import die_with_parent, progress
from serving import RequestError, read, serve, take

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NUMBER = (int, float)
REFUSED = ("tools", "response_format", "logprobs", "logit_bias")
"""What changes the answer and cannot be done here: an error is better than an answer that ignores it."""
ALL = -1
"""Stands for a `top_k` of all words."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Text:
    """The text of a growing list of tokens, a piece at a time: characters can span tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._begun = self._said = 0

    def more(self, tokens: list[int], *, last: bool) -> str:
        """Return the text that the tokens after those of the last call add."""
        before = self._tokenizer.decode(tokens[self._begun : self._said], skip_special_tokens=True)
        now: str = self._tokenizer.decode(tokens[self._begun :], skip_special_tokens=True)
        if not last and (now.endswith(REPLACEMENT) or len(now) <= len(before)):
            return ""
        self._begun, self._said = self._said, len(tokens)
        return now[len(before) :]


class Chat:
    """One model, and the requests that it works on."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        import torch
        from transformers import (
            AutoModelForCausalLM,
            AutoTokenizer,
            ContinuousBatchingConfig,
            GenerationConfig,
        )

        options = arguments.options
        code = options.get("trust_remote_code", False)
        self.name = arguments.name
        self.tokenizer: Any = AutoTokenizer.from_pretrained(arguments.model, trust_remote_code=code)
        device = options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = AutoModelForCausalLM.from_pretrained(
            arguments.model, dtype=options.get("dtype", "auto"), trust_remote_code=code
        ).to(device)
        eos = model.generation_config.eos_token_id
        eos = [eos] if isinstance(eos, int) else list(eos or [])
        self.eos = list({*eos, self.tokenizer.eos_token_id} - {None})
        size, blocks = options.get("block_size", 32), options.get("num_blocks")
        if blocks is None and device == "cpu":
            blocks = 512
        batching = ContinuousBatchingConfig(
            block_size=size,
            num_blocks=blocks,
            max_batch_tokens=options.get("max_batch_tokens", 256 if device == "cpu" else None),
            per_request_processors=True,
            allow_block_sharing=False,
        )
        # Not the values that mean "off", or there would be no place for a request's own.
        sampling = GenerationConfig(
            do_sample=True,
            temperature=0.7,
            top_k=50,
            top_p=0.9,
            eos_token_id=self.eos,
            max_new_tokens=16,
        )
        self.words = model.config.vocab_size
        self.context = getattr(model.config, "max_position_embeddings", None) or 4096
        if blocks:
            self.context = min(self.context, size * blocks)
        self.manager = model.init_continuous_batching(
            generation_config=sampling, continuous_batching_config=batching
        )
        self.manager.start()

    def prompt(self, body: dict[str, Any]) -> list[int]:
        """Return the tokens of the messages, by the checkpoint's own template."""
        messages = take(body, "messages", list)
        if not messages or not all(
            isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages
        ):
            raise RequestError("messages must be a list of objects with a role and a content")
        plain = [{**message, "content": _content(message.get("content"))} for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                plain, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # noqa: BLE001  Jinja's, or what a template raises
            raise RequestError(f"The model's template refuses the messages: {error}") from None
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) >= self.context:
            raise RequestError(
                f"The prompt has {len(tokens)} tokens; the context has room for {self.context}"
            )
        return tokens

    async def generate(
        self, tokens: list[int], body: dict[str, Any]
    ) -> AsyncIterator[tuple[str, int, str]]:
        """Yield (new text, tokens so far, why it ended or nothing)."""
        limit, stops = self._limit(tokens, body), _stops(body)
        number = uuid.uuid4().hex
        results: asyncio.Queue[Any] = asyncio.Queue()
        sampling = _sampling(body)
        top_k = sampling["top_k"]
        sampling["top_k"] = self.words if top_k == ALL else min(top_k, self.words)
        self.manager.register_result_handler(number, results.put_nowait)
        eos = [-1] if take(body, "ignore_eos", bool, default=False) else self.eos
        self.manager.add_request(
            tokens,
            number,
            max_new_tokens=limit,
            streaming=True,
            eos_token_id=eos,
            **sampling,
        )
        text, held, ended = Text(self.tokenizer), "", False
        try:
            while not ended:
                result = await self._next(results)
                while not results.empty():
                    result = results.get_nowait()
                if result.error:
                    raise RequestError(f"The model failed: {result.error}", 500)
                made = [int(token) for token in result.generated_tokens]
                ended = result.is_finished()
                over = bool(made) and made[-1] in eos
                held += text.more(made, last=ended)
                cut = min((i for stop in stops if (i := held.find(stop)) >= 0), default=-1)
                if cut >= 0:
                    yield held[:cut], len(made), "stop"
                    return
                reason = ("stop" if over else "length") if ended else ""
                ready = len(held) if ended else len(held) - _beginning(held, stops)
                if ready or ended:
                    yield held[:ready], len(made), reason
                    held = held[ready:]
        finally:
            if not ended:
                self.manager.cancel_request(number)

    async def _next(self, results: asyncio.Queue[Any]) -> Any:
        """Wait for a result; without its thread the engine can do nothing more, and the service ends."""
        while True:
            try:
                return await asyncio.wait_for(results.get(), 2)
            except TimeoutError:
                if not self.manager.is_running():
                    print("RuntimeError: the generation ended; the lines above say why", flush=True)  # noqa: T201
                    os._exit(1)

    def _limit(self, tokens: list[int], body: dict[str, Any]) -> int:
        wanted = take(body, "max_completion_tokens", int, take(body, "max_tokens", int))
        room = self.context - len(tokens)
        if wanted is not None and wanted < 1:
            raise RequestError("max_tokens must be 1 or more")
        return min(wanted or room, room)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Answer `/v1/chat/completions`."""
        body = await read(request)
        for name in REFUSED:
            if body.get(name):
                raise RequestError(
                    f"{name} is not served by transformers; deploy.vllm and deploy.llamacpp do"
                )
        if take(body, "n", int, 1) != 1:
            raise RequestError("n must be 1")
        options = take(body, "stream_options", dict, {})
        tokens = self.prompt(body)
        (
            _sampling(body),
            _stops(body),
            self._limit(tokens, body),
        )  # what is wrong is said before a stream begins
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.name,
        }
        if take(body, "stream", bool, default=False):
            return await self._stream(
                request, head, tokens, body, usage=bool(options.get("include_usage"))
            )
        text, count, reason = "", 0, ""
        async with aclosing(self.generate(tokens, body)) as pieces:  # type: ignore[type-var]
            async for piece, count, reason in pieces:  # noqa: B007
                text += piece
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        answer = {
            **head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(tokens, count),
        }
        return web.json_response(answer)

    async def _stream(
        self,
        request: web.Request,
        head: dict[str, Any],
        tokens: list[int],
        body: dict[str, Any],
        *,
        usage: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        head = {**head, "object": "chat.completion.chunk"}

        async def send(delta: dict[str, str], reason: str | None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            await _event(response, {**head, "choices": [choice]})

        await send({"role": "assistant", "content": ""}, None)
        count = 0
        try:
            async with aclosing(self.generate(tokens, body)) as pieces:  # type: ignore[type-var]
                async for piece, count, reason in pieces:  # noqa: B007
                    await send({"content": piece} if piece else {}, reason or None)
        except RequestError as error:
            await _event(response, {"error": {"message": str(error), "code": error.status}})
            return response
        if usage:
            await _event(response, {**head, "choices": [], "usage": _usage(tokens, count)})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def slots(self, _: web.Request) -> web.StreamResponse:
        """Say what the engine works on."""
        batch = self.manager.batch_processor
        active = [] if batch is None else list(batch.scheduler.active_requests)
        return web.json_response([{"id": number, "is_processing": True} for number in active])


def _content(content: Any) -> str:
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    if isinstance(content, str) or content is None:
        return content or ""
    raise RequestError("The content of a message must be a text")


def _sampling(body: dict[str, Any]) -> dict[str, Any]:
    """Return a request's own sampling; without temperature the likeliest token is taken."""
    temperature = float(take(body, "temperature", NUMBER, 1.0))
    top_k, top_p = take(body, "top_k", int, 0), float(take(body, "top_p", NUMBER, 1.0))
    if temperature < 0 or not 0 < top_p <= 1:
        raise RequestError("temperature must be 0 or more, top_p between 0 and 1")
    if temperature == 0:
        return {"temperature": 1.0, "top_k": 1, "top_p": 1.0}
    return {"temperature": temperature, "top_k": top_k if top_k > 0 else ALL, "top_p": top_p}


def _stops(body: dict[str, Any]) -> list[str]:
    stops = take(body, "stop", (str, list), [])
    stops = [stops] if isinstance(stops, str) else stops
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise RequestError("stop must be a text or a list of texts")
    return stops


def _beginning(text: str, stops: list[str]) -> int:
    """Return how many characters at the end of a text may begin a stop: they wait."""
    lengths = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return max(lengths, default=0)


def _usage(tokens: list[int], count: int) -> dict[str, int]:
    return {
        "prompt_tokens": len(tokens),
        "completion_tokens": count,
        "total_tokens": len(tokens) + count,
    }


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(data).encode() + b"\n\n")


def main() -> None:
    """Serve one model until a signal ends it."""
    die_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    arguments = parser.parse_args()
    progress("loading the libraries")
    import torch

    if threads := arguments.options.get("n_threads"):
        torch.set_num_threads(threads)
    if arguments.gguf:
        full_precision(arguments.gguf, Path(arguments.model))
    progress("loading the weights")
    chat = Chat(arguments)
    serve(
        arguments.name,
        arguments.port,
        {"/v1/chat/completions": chat.completions},
        {"/slots": chat.slots},
    )


if __name__ == "__main__":
    main()
