"""Which engine runs a model when nobody says, and the command that comes of it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from lazynb.engines.interpreter import interpreter
from lazynb.engines.machine import nvidia
from lazynb.engines.registry import get, names
from lazynb.errors import EngineNotInstalledError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lazynb.engines.base import Engine
    from lazynb.hub import Format, Model
    from lazynb.jobs.spec import Command


FAST = ("vllm", "lmdeploy")
"""Engines that are made for GPUs."""


def choose(model: Model) -> tuple[Engine, str]:
    """Choose the engine for a model.

    Returns
    -------
    Engine
        The first one that serves such a model and is installed; else the first one that serves it.
    str
        One line that says what was chosen and why.

    Raises
    ------
    EngineNotInstalledError
        When no engine serves such a model.
    """
    fitting = sorted((e for e in _usable() if e.serves(model)), key=partial(_rank, model))
    if not fitting:
        what = f"a {model.type} model in the format {model.format}"
        hint = "Connect to a server that runs it: deploy_method('auto', url='http://localhost:8000/v1')."
        if model.type == "chat":
            hint = f"For llama.cpp, get the model as a GGUF file. {hint}"
        raise EngineNotInstalledError(f"No engine runs {model.name}, {what}", hint=hint)
    chosen = next((engine for engine in fitting if _installed(engine)), fitting[0])
    why = f"the first engine for {model.format} {model.type} models"
    why += " that is installed" if _installed(chosen) else ""
    why += "" if nvidia() else "; there is no GPU"
    return chosen, f"{chosen.name}: {why}"


def form() -> Format:
    """Return the form of weights to download on this machine where a model comes in several.

    The engines of a GPU read safetensors; a CPU does best with the quantised GGUF, a quarter of the bytes.
    """
    return "safetensors" if nvidia() and any(_installed(get(name)) for name in FAST) else "gguf"


def plan(model: Model, engine: Engine, options: Mapping[str, Any], name: str) -> Command:
    """Return what to run to serve a model under a name.

    Raises
    ------
    OptionError
        For an option that the engine does not know, or a model that it does not serve.
    EngineNotInstalledError
        When no environment has the engine.
    """
    if not engine.serves(model):
        serves = f"{' and '.join(engine.types)} models in the format {' or '.join(engine.formats)}"
        message = f"{engine.name} does not run {model.name}, a {model.type} model ({model.format})"
        raise OptionError(message, hint=f"It runs {serves}.")
    return engine.command(model, engine.check(options), interpreter(engine), name)


def _rank(model: Model, engine: Engine) -> int:
    """Return an engine's place: lower comes first, and the registry's order decides among the same."""
    if engine.name in FAST and not nvidia():
        return 1  # a CPU waits longer for them to start than they save
    if engine.name == "lmdeploy" and model.type == "vlm":
        return -1
    return 0


def _usable() -> Iterator[Engine]:
    """Yield the engines; one of another package that is broken stands in no other's way."""
    for name in names():
        with suppress(OptionError):
            yield get(name)


def _installed(engine: Engine) -> bool:
    try:
        interpreter(engine)
    except EngineNotInstalledError:
        return False
    return True
