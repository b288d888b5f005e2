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
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from adapters import Adapters
from aiohttp import web
from launch import full_precision
from process import die_with_parent, failed, progress
from sampling import Draw, Sampler
from serving import COUNTS, RequestError, read, serve, take
from threads import no_pool
from wishes import read_wishes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampling import Logprob
    from wishes import Wishes

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Piece(NamedTuple):
    """A piece of an answer."""

    choice: int
    text: str
    tokens: int
    """How many it has so far."""
    reason: str
    """Why it ended, of the last piece."""
    logprobs: list[dict[str, Any]]


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
        import lean
        import torch

        lean.without_tracing()
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
        if device == "cpu":
            lean.without_copies()
        adapters = Adapters(model, options.get("lora_modules", {}))
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
            use_cuda_graph=False,
            use_async_batching=False,
            allow_block_sharing=False,
        )
        self.words = model.config.vocab_size
        self.context = getattr(model.config, "max_position_embeddings", None) or 4096
        if blocks:
            self.context = min(self.context, size * blocks)
        plain = GenerationConfig(do_sample=False, eos_token_id=self.eos, max_new_tokens=16)
        self.manager = manager = model.init_continuous_batching(
            generation_config=plain, continuous_batching_config=batching
        )
        with torch.inference_mode():
            manager.batch_processor = manager._create_batch_processor()
        self.draws = Sampler(model, manager.batch_processor, adapters).draws
        self.error: Exception | None = None
        manager._handle_critical_error = self._note

    def start(self) -> None:
        """Begin to work on requests, in a thread of its own."""
        self.manager.start()
        Thread(target=self._end_with_it, daemon=True).start()

    def _end_with_it(self) -> None:
        """Without its thread the engine can do nothing more, and the service ends."""
        self.manager._generation_thread.join()
        failed(f"the generation failed: {self.error!r}")
        os._exit(1)

    def _note(self, error: Exception, _: Any) -> None:
        """Keep what ended the generation."""
        self.error = error

    def prompt(self, body: dict[str, Any], wishes: Wishes) -> list[int]:
        """Return the tokens of the messages, by the checkpoint's own template."""
        messages = take(body, "messages", list)
        if not messages or not all(
            isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages
        ):
            raise RequestError("messages must be a list of objects with a role and a content")
        plain = [{**message, "content": _content(message.get("content"))} for message in messages]
        settings = {"add_generation_prompt": True, **wishes.template, "tokenize": False}
        try:
            text = self.tokenizer.apply_chat_template(plain, **settings)
        except Exception as error:  # noqa: BLE001  Jinja's, or what a template raises
            raise RequestError(f"The model's template refuses the messages: {error}") from None
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) >= self.context:
            raise RequestError(
                f"The prompt has {len(tokens)} tokens; the context has room for {self.context}"
            )
        return tokens

    async def generate(
        self, tokens: list[int], wishes: Wishes, matcher: Any, choice: int
    ) -> AsyncIterator[Piece]:
        """Yield an answer as it is made."""
        room = self.context - len(tokens)
        limit, stops = min(wishes.limit or room, room), wishes.stops
        number = uuid.uuid4().hex
        results: asyncio.Queue[Any] = asyncio.Queue()
        eos = [-1] if wishes.ignore_eos else self.eos
        draw = self.draws[number] = Draw(wishes, tokens, limit, matcher, wishes.seed + choice)
        self.manager.register_result_handler(number, results.put_nowait)
        self.manager.add_request(
            tokens, number, max_new_tokens=limit, streaming=True, eos_token_id=eos
        )
        text, held, ended, told = Text(self.tokenizer), "", False, 0
        made: list[int] = []
        try:
            while not ended:
                result = await results.get()
                while not results.empty():
                    result = results.get_nowait()
                if result.error:
                    raise RequestError(f"The model failed: {result.error}", 500)
                COUNTS["tokens_total"] += len(result.generated_tokens) - len(made)
                made = result.generated_tokens[:]
                ended = result.is_finished()
                over = bool(made) and made[-1] in eos
                held += text.more(made, last=ended)
                cut = min((i for stop in stops if (i := held.find(stop)) >= 0), default=-1)
                reason = "stop" if cut >= 0 or (ended and over) else "length" if ended else ""
                ready = (
                    cut if cut >= 0 else len(held) if ended else len(held) - _beginning(held, stops)
                )
                if ready or reason:
                    known = [self._logprob(one) for one in draw.logprobs[told : len(made) - over]]
                    told += len(known)
                    yield Piece(choice, held[:ready], len(made), reason, known)
                    held = held[ready:]
                if cut >= 0:
                    return
        finally:
            if not ended:
                self.manager.cancel_request(number)
            del self.draws[number]

    def _logprob(self, one: Logprob) -> dict[str, Any]:
        def entry(token: int, value: float) -> dict[str, Any]:
            text = self.tokenizer.decode([token])
            return {"token": text, "logprob": value, "bytes": list(text.encode())}

        return {**entry(one.token, one.value), "top_logprobs": [entry(*pair) for pair in one.top]}

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Answer `/v1/chat/completions`."""
        body = await read(request)
        wishes = read_wishes(body, self.words)
        tokens = self.prompt(body, wishes)
        matchers = [None] * wishes.choices
        if wishes.schema is not None:
            matchers = await asyncio.to_thread(self._matchers, wishes)
        pieces = merged([self.generate(tokens, wishes, one, i) for i, one in enumerate(matchers)])
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": wishes.model or self.name,
        }
        async with aclosing(pieces):  # type: ignore[type-var]
            if wishes.stream:
                return await self._stream(request, head, tokens, wishes, pieces)
            return await self._whole(head, tokens, wishes, pieces)

    def _matchers(self, wishes: Wishes) -> list[Any]:
        import grammar

        found: list[Any] = grammar.matchers(
            self.tokenizer, self.words, wishes.schema, wishes.choices
        )
        return found

    async def _whole(
        self,
        head: dict[str, Any],
        tokens: list[int],
        wishes: Wishes,
        pieces: AsyncIterator[Piece],
    ) -> web.StreamResponse:
        parts: list[list[Piece]] = [[] for _ in range(wishes.choices)]
        async for piece in pieces:
            parts[piece.choice].append(piece)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(p.text for p in part)},
                "finish_reason": part[-1].reason,
                "logprobs": _content_of([one for p in part for one in p.logprobs], wishes),
            }
            for index, part in enumerate(parts)
        ]
        usage = _usage(tokens, sum(part[-1].tokens for part in parts))
        answer = {**head, "object": "chat.completion", "choices": choices, "usage": usage}
        return web.json_response(answer)

    async def _stream(
        self,
        request: web.Request,
        head: dict[str, Any],
        tokens: list[int],
        wishes: Wishes,
        pieces: AsyncIterator[Piece],
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        head = {**head, "object": "chat.completion.chunk"}

        async def send(
            index: int, delta: dict[str, str], reason: str = "", known: Any = ()
        ) -> None:
            choice: dict[str, Any] = {
                "index": index,
                "delta": delta,
                "finish_reason": reason or None,
            }
            if wishes.top_logprobs is not None:
                choice["logprobs"] = _content_of(known, wishes)
            await _event(response, {**head, "choices": [choice]})

        for index in range(wishes.choices):
            await send(index, {"role": "assistant", "content": ""})
        counts = [0] * wishes.choices
        try:
            async for piece in pieces:
                counts[piece.choice] = piece.tokens
                delta = {"content": piece.text} if piece.text else {}
                await send(piece.choice, delta, piece.reason, piece.logprobs)
        except RequestError as error:
            await _event(response, {"error": {"message": str(error), "code": error.status}})
            return response
        if wishes.usage:
            await _event(response, {**head, "choices": [], "usage": _usage(tokens, sum(counts))})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def slots(self, _: web.Request) -> web.StreamResponse:
        """Say what the engine works on."""
        active = list(self.manager.batch_processor.scheduler.active_requests)
        return web.json_response([{"id": number, "is_processing": True} for number in active])


async def merged(answers: list[AsyncIterator[Piece]]) -> AsyncIterator[Piece]:
    """Yield what several answers yield, as it comes."""
    if len(answers) == 1:
        async with aclosing(answers[0]) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield piece
        return
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()

    async def follow(answer: AsyncIterator[Piece]) -> None:
        try:
            async with aclosing(answer) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    queue.put_nowait(piece)
        finally:
            queue.put_nowait(None)

    tasks = [asyncio.create_task(follow(answer)) for answer in answers]
    try:
        for _ in tasks:
            while (one := await queue.get()) is not None:
                yield one
        for task in tasks:
            await task  # which raises what went wrong
    finally:
        for task in tasks:
            task.cancel()


def _content(content: Any) -> str:
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    if isinstance(content, str) or content is None:
        return content or ""
    raise RequestError("The content of a message must be a text")


def _content_of(known: list[dict[str, Any]], wishes: Wishes) -> dict[str, Any] | None:
    return None if wishes.top_logprobs is None else {"content": list(known)}


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
    with no_pool(arguments.options.get("n_threads")):
        if arguments.gguf:
            full_precision(arguments.gguf, Path(arguments.model))
        progress("loading the weights")
        chat = Chat(arguments)
    chat.start()
    serve(
        arguments.name,
        arguments.port,
        {"/v1/chat/completions": chat.completions},
        {"/slots": chat.slots},
        adapters=arguments.options.get("lora_modules", {}),
    )


if __name__ == "__main__":
    main()
