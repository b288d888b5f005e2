"""transformers: runs what has weights and a chat template, with continuous batching, by `servers/text/chat.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lazynb.config import config
from lazynb.engines import embedding, lora
from lazynb.engines.base import Engine, Footprint, Option
from lazynb.engines.machine import spinning
from lazynb.engines.vllm import probe
from lazynb.jobs.spec import CauseRule, Command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynb.hub import Model

OPTIONS = {
    "device": embedding.OPTIONS["device"],
    "dtype": embedding.OPTIONS["dtype"],
    "n_threads": embedding.OPTIONS["n_threads"],
    "trust_remote_code": embedding.OPTIONS["trust_remote_code"],
    "block_size": Option(embedding.Positive, "tokens in a block of the cache"),
    "num_blocks": Option(
        embedding.Positive,
        "blocks of the cache, for all requests together (CPU: 512; GPU: what is free)",
    ),
    "max_batch_tokens": Option(embedding.Positive, "tokens computed at once"),
    "lora_modules": lora.option(plain=True),
}
CAUSES = [
    CauseRule(
        pattern=r"does not recognize this architecture|Unrecognized configuration class",
        cause="this transformers does not know the model's architecture",
        hint="Update lazynb and its environment: %lazyllm install transformers",
    ),
    CauseRule(
        pattern=r"size mismatch for \S*lora_|Target modules .* not found in the base model|LoRA keys .* not found",
        cause="an adapter of lora_modules does not fit this base model",
        hint="Serve it beside the model that it was trained on.",
    ),
    *embedding.CAUSES,
]


def command(model: Model, options: Mapping[str, Any], python: str, name: str) -> Command:
    """Say how to serve a folder of weights; those of a GGUF file are unpacked first, where a trainer finds them too."""
    path, gguf = model.path, []
    if model.format == "gguf":
        path = str(config.cache_dir / f"{Path(model.path).stem}-full")
        gguf = ["--gguf", model.path]
    argv = [python, str(embedding.SERVERS / "chat.py"), "--model", path, "--name", name]
    argv += ["--port", "{port}", *gguf, "--options", msgspec.json.encode(options).decode()]
    env = {"LAZYNB_KEY": "{key}", **embedding.OFFLINE, **spinning()}
    return Command(
        argv=argv, env=env, ready=probe(model.type, name), causes=CAUSES, load="/metrics"
    )


def _context(_: Model, options: Mapping[str, Any]) -> int:
    """Return the tokens that the cache on a CPU has room for."""
    return int(options.get("block_size", 32) * options.get("num_blocks", 512))


engine = Engine(
    name="transformers",
    types=("chat",),
    formats=("safetensors", "gguf"),
    package="transformers",
    requirement="transformers",
    options=OPTIONS,
    command=command,
    footprint=Footprint(overhead=700 << 20, cache=_context, gpu=True),
)
