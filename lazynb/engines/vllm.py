"""vLLM: the fastest engine for many requests at once, on NVIDIA GPUs; a build for the CPU runs too.

Its own server is started, with its own options under their own names.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from lazynb.engines import commandline, lora
from lazynb.engines.base import Engine, Footprint
from lazynb.engines.machine import available_memory, cores, nvidia, spinning
from lazynb.jobs.spec import CauseRule, Command, Probe, ProgressRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynb.hub import Model

MODULE = "vllm.entrypoints.openai.api_server"
OURS = (
    "model",
    "model_tag",
    "served_model_name",
    "host",
    "port",
    "uds",
    "api_key",
    "config",
    "headless",
    "ssl_keyfile",
    "ssl_certfile",
    "ssl_ca_certs",
)
GUARD = str(commandline.LAUNCH.parents[1] / "guard")
CONTEXT = 4096
"""Tokens of context on a CPU, where a model's full context would not fit into the cache."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Of LoRA adapters, as vLLM makes room for them."""
CACHE = 4 << 30
"""Bytes of the cache on a CPU, or a quarter of the free memory if that is less."""

PROGRESS = [
    ProgressRule(
        pattern=r"Loading safetensors checkpoint shards:.*?(?P<done>\d+)/(?P<total>\d+)",
        text="loading weights {done} of {total}",
    ),
    ProgressRule(pattern=r"Starting to load model", text="loading the weights"),
    ProgressRule(pattern=r"Capturing CUDA graph", text="capturing CUDA graphs"),
    ProgressRule(pattern=r"[Ww]arm(?:ing)? ?up", text="warming up"),
]
CAUSES = [
    CauseRule(
        pattern=r"(?:trust_remote_code=True|contains custom code)",
        cause="the checkpoint brings code of its own, which is not run unless you ask for it",
        hint="When you trust it: deploy_method(deploy.vllm, trust_remote_code=True).",
    ),
    CauseRule(
        pattern=r"Model architectures? (?P<kind>\S+) (?:is|are) not supported",
        cause="this vLLM does not know the model architecture {kind}",
        hint="deploy.transformers may.",
    ),
    CauseRule(
        pattern=r"max seq len \((?P<wanted>\d+)\).*KV cache.*estimated maximum model length is (?P<fits>\d+)",
        cause="a context of {wanted} tokens does not fit into the cache",
        hint="max_model_len={fits} would fit.",
        memory=True,
    ),
    CauseRule(
        pattern=r"max seq len \((?P<wanted>\d+)\).*?KV cache|larger than the maximum number of tokens.*KV cache",
        cause="the context does not fit into the cache",
        hint="Use a smaller max_model_len.",
        memory=True,
    ),
    CauseRule(
        pattern=r"No available memory for the cache blocks|(?:Free|Available) memory on .* is less than desired",
        cause="there is not enough free memory for the model and its cache",
        hint="Stop other services (%lazyllm ps), or use a smaller max_model_len or gpu_memory_utilization.",
        memory=True,
    ),
    CauseRule(
        pattern=r"api_server\.py: error: (?P<words>.+)",
        cause="vLLM refused an option: {words}",
        hint="Check the options that you gave.",
    ),
    CauseRule(
        pattern=r"(?:ValueError|ValidationError|RuntimeError|ImportError): (?!Engine core)(?P<words>.+)",
        cause="vLLM could not start: {words}",
    ),
]


def command(model: Model, options: Mapping[str, Any], python: str, name: str) -> Command:
    """Say how to serve a model's weights."""
    start, path = commandline.launched(MODULE, model, python)
    env = {"VLLM_API_KEY": "{key}", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    env |= spinning()
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [GUARD, os.environ.get("PYTHONPATH")]))
    filled: dict[str, Any] = dict(options)
    if not nvidia():
        filled = {"enforce_eager": True, "max_model_len": CONTEXT, **options}
        env["VLLM_CPU_KVCACHE_SPACE"] = _space()
        env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(cores()))
    if model.type in ("embed", "rerank"):
        filled.setdefault("runner", "pooling")
        if "max_model_len" not in options:
            filled.pop("max_model_len", None)
    adapters = filled.pop("lora_modules", {})
    if adapters:
        rank = next((r for r in RANKS if r >= lora.rank(adapters)), RANKS[-1])
        # On a CPU it takes the last place for requests of the base, in a batch with others: that stays empty.
        places = len(adapters) + (not nvidia())
        filled = {"enable_lora": True, "max_lora_rank": rank, "max_loras": places, **filled}
    argv = [*start, "--model", path, "--served-model-name", name]
    argv += ["--host", "127.0.0.1", "--port", "{port}"]
    argv += commandline.arguments("vllm", filled)
    argv += ["--middleware", "lazynb_guard.Guard"]
    # JSON, for a folder's name may have a '=' itself
    argv += ["--lora-modules"] * bool(adapters)
    argv += [json.dumps({"name": one, "path": folder}) for one, folder in adapters.items()]
    return Command(
        argv=argv,
        env=env,
        ready=probe(model.type, name),
        progress=PROGRESS,
        causes=CAUSES,
        load="/metrics",
    )


def _space() -> str:
    """Return the GiB of the cache on a CPU."""
    space = max(1, min(CACHE, available_memory() // 4) >> 30)
    return os.environ.get("VLLM_CPU_KVCACHE_SPACE", str(space))


def _context(model: Model, _: Mapping[str, Any]) -> int:
    """Return the tokens that the cache on a CPU has room for."""
    from lazynb.engines.memory import shape

    return (int(_space()) << 30) // max(1, shape(model)[0])


def probe(kind: str, name: str) -> Probe:
    """Return a request of one token or one item, for a type of model."""
    if kind == "embed":
        return Probe(path="/v1/embeddings", body={"model": name, "input": "hi"})
    if kind == "rerank":
        return Probe(path="/v1/rerank", body={"model": name, "query": "hi", "documents": ["hi"]})
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": name, "messages": messages, "max_tokens": 1}
    return Probe(path="/v1/chat/completions", body=body)


engine = Engine(
    name="vllm",
    types=("chat", "vlm", "embed", "rerank"),
    formats=("safetensors", "gguf"),
    package="vllm",
    requirement="vllm",
    options={**commandline.options("vllm", OURS), "lora_modules": lora.option()},
    aliases={"tp": "tensor_parallel_size", "context_length": "max_model_len"},
    command=command,
    footprint=Footprint(
        overhead=2500 << 20,
        cache=_context,
        context="max_model_len",
        gpu=True,
        parallel=("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
        share="gpu_memory_utilization",
    ),
)
