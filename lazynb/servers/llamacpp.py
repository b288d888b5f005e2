"""llama.cpp's own server as a service of lazynb: the OpenAI API over one GGUF file.

This program runs in the engine's environment, by path, and needs nothing but xllamacpp. It
translates options into llama.cpp's `CommonParams` and hands over. It never outlives its parent, and
it ends at once on SIGTERM: there is no state to save.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import socket
import sys
from typing import Any

import xllamacpp

PR_SET_PDEATHSIG = 1

WORDS = {
    "cache_type_k": (xllamacpp.ggml_type, "GGML_TYPE_"),
    "cache_type_v": (xllamacpp.ggml_type, "GGML_TYPE_"),
    "flash_attn_type": (xllamacpp.llama_flash_attn_type, "LLAMA_FLASH_ATTN_TYPE_"),
    "load_mode": (xllamacpp.llama_load_mode, "LLAMA_LOAD_MODE_"),
    "numa": (xllamacpp.ggml_numa_strategy, "GGML_NUMA_STRATEGY_"),
    "pooling_type": (xllamacpp.llama_pooling_type, "LLAMA_POOLING_TYPE_"),
    "reasoning_format": (xllamacpp.common_reasoning_format, "COMMON_REASONING_FORMAT_"),
    "rope_scaling_type": (xllamacpp.llama_rope_scaling_type, "LLAMA_ROPE_SCALING_TYPE_"),
    "split_mode": (xllamacpp.llama_split_mode, "LLAMA_SPLIT_MODE_"),
}
"""Options whose values are words, and the enumerations that they come from."""
SYNONYMS = {"on": "enabled", "off": "disabled"}
"""What the `llama-server` command calls them."""


def main() -> None:
    """Serve one model until a signal ends it."""
    die_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--options", type=json.loads, default={})
    arguments = parser.parse_args()

    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.model_alias = {arguments.name}
    params.port = arguments.port
    params.api_keys = [os.environ["LLAMA_API_KEY"]]
    params.ui = False
    params.endpoint_slots = True
    params.verbosity = 1  # errors
    if not gpus():
        params.fit_params = False  # takes 0.4 s
        params.n_batch = 128  # no slower here, and a prompt that nobody wants ends with its batch
    for option, value in arguments.options.items():
        fill(params, option, value)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        if taken(arguments.port):
            sys.exit(f"address already in use: port {arguments.port}")
        sys.exit("llama.cpp could not start; the lines above say why")
    # llama.cpp itself would wait for the requests that are running.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    print(f"listening on {server.listening_address}", flush=True)  # noqa: T201
    while True:
        signal.pause()


def die_with_parent() -> None:
    """Ask the kernel for a SIGKILL when the supervisor dies, however it dies."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The supervisor is gone")


def fill(params: Any, option: str, value: Any) -> None:
    """Set one option; the setters of `CommonParams` check its type."""
    if option == "n_threads":
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = value
    elif option == "n_threads_batch":
        params.cpuparams_batch.n_threads = value
    elif option == "mmproj":
        params.mmproj.path = value
    elif option == "lora_adapters":
        params.lora_adapters = [adapter(path) for path in value]
    elif option == "tensor_split":
        params.tensor_split = value + [0.0] * (len(params.tensor_split) - len(value))
    elif option in WORDS:
        enumeration, prefix = WORDS[option]
        word = SYNONYMS.get(value, value)
        setattr(params, option, enumeration[prefix + word.upper()])
    else:
        setattr(params, option, value)


def adapter(path: str) -> Any:
    """Return one LoRA adapter, at its full weight."""
    info = xllamacpp.CommonAdapterLoraInfo()
    info.path, info.scale = path, 1.0
    return info


def taken(port: int) -> bool:
    """Say whether another program listens on a port, for which llama.cpp has no clear word."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def gpus() -> bool:
    """Say whether this build of llama.cpp sees a GPU."""
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    return any(device["type"] != cpu for device in xllamacpp.get_device_info())


if __name__ == "__main__":
    main()
