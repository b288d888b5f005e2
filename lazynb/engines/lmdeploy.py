"""LMDeploy: chat and vision-language models on NVIDIA GPUs, by its own server with its own options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynb.engines import commandline, lora
from lazynb.engines.base import Engine, Footprint
from lazynb.engines.vllm import probe
from lazynb.jobs.spec import CauseRule, Command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynb.hub import Model

OURS = ("server_name", "server_port", "model_name", "api_keys", "ssl", "adapters")
CAUSES = [
    CauseRule(
        pattern=r"No CUDA GPUs are available|no NVIDIA driver|libcuda\.so",
        cause="LMDeploy needs an NVIDIA GPU, and there is none",
        hint="Use deploy.vllm, deploy.transformers or deploy.llamacpp.",
    ),
    CauseRule(
        pattern=r"lmdeploy serve api_server: error: (?P<words>.+)",
        cause="LMDeploy refused an option: {words}",
        hint="Check the options that you gave.",
    ),
]


def command(model: Model, options: Mapping[str, Any], python: str, name: str) -> Command:
    """Say how to serve a folder of weights. LMDeploy takes its key as an argument alone: `launch.py` hides it."""
    start, path = commandline.launched("lmdeploy", model, python, key_flag="--api-keys")
    argv = [*start, "serve", "api_server", path, "--model-name", name]
    argv += ["--server-name", "127.0.0.1", "--server-port", "{port}"]
    given = dict(options)
    if adapters := given.pop("lora_modules", {}):
        given = {"backend": "pytorch", **given}  # its other backend serves none
        given["adapters"] = [f"{one}={folder}" for one, folder in adapters.items()]
    argv += commandline.arguments("lmdeploy", given)
    env = {"LAZYNB_KEY": "{key}", "HF_HUB_OFFLINE": "1"}
    return Command(
        argv=argv, env=env, ready=probe(model.type, name), causes=CAUSES, load="/metrics"
    )


engine = Engine(
    name="lmdeploy",
    types=("chat", "vlm"),
    formats=("safetensors",),
    package="lmdeploy",
    requirement="lmdeploy",
    options={**commandline.options("lmdeploy", OURS), "lora_modules": lora.option()},
    aliases={"tensor_parallel_size": "tp", "max_model_len": "session_len"},
    command=command,
    footprint=Footprint(gpu=True, context="session_len", parallel=("tp", "dp")),
)
