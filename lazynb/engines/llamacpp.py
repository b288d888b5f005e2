"""llama.cpp: the engine that needs nothing.

No torch, one wheel, up in about a second, GGUF files as they are shipped. `servers/llamacpp.py` is
the program; this file fills in what llama.cpp leaves open and a notebook needs: how many requests
at once, how much context for each, how many threads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from lazynb.engines.base import Engine, Footprint, Option
from lazynb.engines.machine import available_memory, cores
from lazynb.hub.gguf import metadata
from lazynb.jobs.spec import CauseRule, Command, Probe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynb.hub import Model

SERVER = Path(__file__).parents[1] / "servers" / "llamacpp.py"

SLOTS = 8
"""Requests that are worked on at once; more wait in the queue. On a CPU sixteen are hardly faster."""
CONTEXT = 4096
"""Tokens of context for each of them."""
CACHE = 768 << 20
"""Bytes for all of them together, or half the size of the weights if that is more. llama.cpp writes to
every page of it while it starts: a gibibyte more is a second more."""
SPIN = "1000"
"""How often a thread that waits for the others looks before it sleeps. By default it looks for
milliseconds: where another program takes a core, as a notebook's kernel and browser do, all stand still."""
HTTP_THREADS = 64
"""Each connection holds one of the server's threads, an idle one too."""

Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]

OPTIONS = {
    "n_ctx": Option(
        Natural, "tokens of context, for all requests together (0: as the model was trained)"
    ),
    "n_parallel": Option(Positive, "requests worked on at once"),
    "kv_unified": Option(bool, "one pool of context for all requests"),
    "n_threads": Option(Positive, "processor threads"),
    "n_threads_batch": Option(Positive, "processor threads for reading prompts"),
    "n_threads_http": Option(Positive, "threads that answer connections"),
    "n_batch": Option(Positive, "tokens of prompts read at once"),
    "n_ubatch": Option(Positive, "tokens computed at once"),
    "n_gpu_layers": Option(int, "layers on the GPU (-1: as many as fit)"),
    "main_gpu": Option(int, "the GPU to use"),
    "split_mode": Option(Literal["none", "layer", "row"], "how several GPUs share the model"),
    "tensor_split": Option(list[float], "shares of the GPUs"),
    "flash_attn_type": Option(Literal["auto", "on", "off"], "flash attention"),
    "cache_type_k": Option(CacheType, "number format of the cached keys"),
    "cache_type_v": Option(CacheType, "number format of the cached values"),
    "cache_prompt": Option(bool, "keep the prompt of a request for the next one"),
    "cache_ram_mib": Option(int, "memory for conversations that left their slot, in MiB"),
    "n_cache_reuse": Option(int, "smallest piece of a cached prompt to use again, in tokens"),
    "swa_full": Option(bool, "full cache for sliding-window attention"),
    "ctx_shift": Option(bool, "forget the oldest tokens when the context is full"),
    "n_predict": Option(int, "most tokens of an answer (-1: no limit)"),
    "chat_template": Option(str, "a Jinja template in place of the model's own"),
    "use_jinja": Option(bool, "use the Jinja engine for the chat template"),
    "reasoning_format": Option(
        Literal["none", "auto", "deepseek", "deepseek_legacy"],
        "where a reasoning model's thoughts go",
    ),
    "rope_freq_base": Option(float, "base frequency of RoPE"),
    "rope_freq_scale": Option(float, "frequency scale of RoPE"),
    "rope_scaling_type": Option(
        Literal["none", "linear", "yarn", "longrope"], "how RoPE is stretched"
    ),
    "yarn_orig_ctx": Option(int, "context that the model was trained with, for YaRN"),
    "load_mode": Option(
        Literal["auto", "none", "mmap", "mlock", "mmap_mlock", "direct_io"],
        "how the weights are read",
    ),
    "numa": Option(
        Literal["disabled", "distribute", "isolate", "numactl"], "placement on NUMA machines"
    ),
    "warmup": Option(bool, "run the model once while starting"),
    "check_tensors": Option(bool, "look for broken numbers in the weights"),
    "endpoint_metrics": Option(bool, "serve /metrics"),
    "slot_prompt_similarity": Option(
        float, "how like a slot's prompt a request must be to go there"
    ),
    "lora_adapters": Option(list[str], "paths of LoRA adapters (GGUF)"),
    "mmproj": Option(str, "path of the GGUF that reads images"),
    "verbosity": Option(int, "1: errors, 2: warnings, 3: what is done, 4: everything"),
}
# What the `llama-server` command calls them.
ALIASES = {
    "ctx_size": "n_ctx",
    "parallel": "n_parallel",
    "threads": "n_threads",
    "threads_batch": "n_threads_batch",
    "threads_http": "n_threads_http",
    "batch_size": "n_batch",
    "ubatch_size": "n_ubatch",
    "gpu_layers": "n_gpu_layers",
    "flash_attn": "flash_attn_type",
    "cache_ram": "cache_ram_mib",
    "cache_reuse": "n_cache_reuse",
    "context_shift": "ctx_shift",
    "predict": "n_predict",
    "jinja": "use_jinja",
    "lora": "lora_adapters",
    "metrics": "endpoint_metrics",
}

CAUSES = [
    CauseRule(
        pattern=r"address already in use: port (?P<port>\d+)",
        cause="its port {port} is taken by another program",
        hint="Choose another port, or none: a free one is taken then.",
    ),
    CauseRule(
        pattern=r"data is not within the file bounds|failed to read (?:key-value pairs|tensor (?:info|data)|magic)",
        cause="the GGUF file is incomplete or broken",
        hint="It was probably not downloaded to its end. Delete it and get it again.",
    ),
    CauseRule(
        pattern=r"invalid magic characters|failed to read header|bad GGUF|invalid ggml type|duplicated? key",
        cause="the file is not a readable GGUF file",
        hint="Check that it is a model in the GGUF format, and get it again.",
    ),
    CauseRule(
        pattern=r"unknown model architecture: '(?P<kind>[^']*)'",
        cause="this llama.cpp does not know the model architecture '{kind}'",
        hint="Update it: %pip install -U xllamacpp",
    ),
    CauseRule(
        pattern=r"insufficient memory|failed to allocate|unable to allocate|std::bad_alloc|out of memory",
        cause="there is not enough memory for the model and its context",
        hint="Use a smaller n_ctx or n_parallel, or a smaller quantisation of the model.",
        memory=True,
    ),
    CauseRule(
        pattern=r"failed to open GGUF file|No such file or directory",
        cause="the weights are not there any more, or cannot be read",
        hint="Check the path and its permissions.",
    ),
    CauseRule(
        pattern=r"No module named '?xllamacpp",
        cause="its Python environment has no xllamacpp",
        hint="Install it: %pip install xllamacpp",
    ),
]


def command(model: Model, options: Mapping[str, Any], python: str, name: str) -> Command:
    """Say how to serve a GGUF file."""
    filled = {**_defaults(Path(model.path), options), **options}
    argv = [python, str(SERVER), "--model", model.path, "--name", name, "--port", "{port}"]
    argv += ["--options", msgspec.json.encode(filled).decode()]
    env = {"LLAMA_API_KEY": "{key}", "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", SPIN)}
    return Command(argv=argv, env=env, ready=_probe(name), causes=CAUSES, load="/slots")


def _probe(name: str) -> Probe:
    message = {"role": "user", "content": "hi"}
    return Probe(
        path="/v1/chat/completions", body={"model": name, "messages": [message], "max_tokens": 1}
    )


def _defaults(weights: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what llama.cpp leaves open, fitted to the model and the machine.

    One answer alone leaves a core to the notebook, which shows it; many at once and prompts take all.

    Each request gets a context of its own. In a pool that they share, the one that overflows it
    would end all the others too; that happens only to a user who sets `n_ctx` alone, as with
    llama-server.
    """
    filled: dict[str, Any] = {
        "n_threads": max(1, cores() - 1),
        "n_threads_batch": options.get("n_threads", cores()),
        "n_threads_http": max(HTTP_THREADS, 4 * options.get("n_parallel", 0)),
        "cache_ram_mib": 512,  # llama.cpp would take 8 GiB
        "n_parallel": -1,
    }
    token, trained = _cost(weights)
    if "n_ctx" not in options:
        context = min(CONTEXT, trained)
        room = min(max(CACHE, weights.stat().st_size / 2), available_memory() / 2)
        filled["n_parallel"] = max(1, min(SLOTS, int(room / (context * token))))
        filled["n_ctx"] = context * options.get("n_parallel", filled["n_parallel"])
    return filled


def _context(model: Model, options: Mapping[str, Any]) -> int:
    """Return the tokens of context that are kept room for."""
    weights = Path(model.path)
    given = options.get("n_ctx")
    return int(
        _defaults(weights, options)["n_ctx"] if given is None else given or _cost(weights)[1]
    )


def _cost(weights: Path) -> tuple[int, int]:
    """Return the bytes that a token of context takes, and the tokens that the model was trained with."""
    facts = metadata(weights)

    def fact(key: str, default: int) -> int:
        number = facts.get(key)
        if isinstance(number, list):  # the layers differ
            number = max((item for item in number if isinstance(item, int)), default=0)
        return number if isinstance(number, int) and number > 0 else default

    heads = fact("attention.head_count", 32)
    width = fact("attention.key_length", fact("embedding_length", 4096) // heads)
    shared = fact("attention.head_count_kv", heads)
    keys_and_values = 2 * 2  # of 2 bytes each
    token = keys_and_values * shared * width * fact("block_count", 32)
    return max(1, token), fact("context_length", CONTEXT)


engine = Engine(
    name="llamacpp",
    types=("chat",),
    formats=("gguf",),
    package="xllamacpp",
    requirement="xllamacpp",
    options=OPTIONS,
    aliases=ALIASES,
    command=command,
    footprint=Footprint(overhead=128 << 20, cache=_context, context="n_ctx"),
)
