"""Embedding models on sentence-transformers; `servers/text/embedding.py` is the program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from lazynb.engines.base import Engine, Footprint, Option
from lazynb.engines.machine import spinning
from lazynb.jobs.spec import CauseRule, Command, Probe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynb.hub import Model

SERVERS = Path(__file__).parents[1] / "servers" / "text"

Positive = Annotated[int, msgspec.Meta(ge=1)]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
"""The weights are here: nothing is asked of a hub, and no telemetry is sent."""

OPTIONS = {
    "device": Option(str, "where it runs: cpu, cuda, cuda:1 (default: a GPU where there is one)"),
    "dtype": Option(Literal["float32", "float16", "bfloat16"], "number format of the weights"),
    "batch_size": Option(Positive, "texts computed at once"),
    "max_seq_length": Option(Positive, "tokens that are read of each text"),
    "n_threads": Option(Positive, "processor threads"),
    "trust_remote_code": Option(bool, "run code that comes with the checkpoint"),
}
ALIASES = {"max_length": "max_seq_length"}
CAUSES = [
    CauseRule(
        pattern=r"SafetensorError|Error while deserializing header|invalid load key|PytorchStreamReader failed",
        cause="its weights are incomplete or broken",
        hint="They were probably not downloaded to their end. Delete them and get them again.",
    ),
    CauseRule(
        pattern=r"trust_remote_code|contains custom code",
        cause="the checkpoint brings code of its own, which is not run unless you ask for it",
        hint="When you trust it: deploy_method(…, trust_remote_code=True).",
    ),
    CauseRule(
        pattern=r"No module named '?(?:sentence_transformers|torch|aiohttp)",
        cause="its Python environment is not complete",
        hint="Mend it: %lazyllm install embedding",
    ),
]


def command(model: Model, options: Mapping[str, Any], python: str, name: str) -> Command:
    """Say how to serve a folder of weights."""
    task = model.type
    probe = (
        Probe(path="/v1/embeddings", body={"model": name, "input": "hi"})
        if task == "embed"
        else Probe(path="/v1/rerank", body={"model": name, "query": "hi", "documents": ["hi"]})
    )
    argv = [python, str(SERVERS / "embedding.py"), "--task", task, "--model", model.path]
    argv += ["--name", name, "--port", "{port}"]
    argv += ["--options", msgspec.json.encode(options).decode()]
    env = {"LAZYNB_KEY": "{key}", **OFFLINE, "TOKENIZERS_PARALLELISM": "true", **spinning()}
    return Command(argv=argv, env=env, ready=probe, causes=CAUSES, load="/metrics")


engine = Engine(
    name="embedding",
    types=("embed",),
    formats=("safetensors", "other"),
    package="sentence_transformers",
    requirement="sentence-transformers",
    options=OPTIONS,
    aliases=ALIASES,
    command=command,
    footprint=Footprint(overhead=700 << 20, gpu=True),
)
