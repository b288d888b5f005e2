"""Options of a server with a command line of its own: read from its listing, written as arguments.

The listing (`vllm.json`, …) is what `servers/text/options.py` printed from the pinned version's own parser.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lazynb.config import config
from lazynb.engines.base import Option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynb.hub import Model

LAUNCH = Path(__file__).parents[1] / "servers" / "text" / "launch.py"
KINDS: dict[str, Any] = {
    "flag": bool,
    "bool": bool,
    "int": int,
    "float": float,
    "str": str | int | float | dict[str, Any],
    "list": list[str],
}


def listed(engine: str) -> dict[str, tuple[str | list[str], str]]:
    """Return name → (kind, help) of a server's options."""
    text = (Path(__file__).parent / f"{engine}.json").read_text(encoding="utf-8")
    found: dict[str, tuple[str | list[str], str]] = json.loads(text)
    return found


def options(engine: str, ours: tuple[str, ...]) -> dict[str, Option]:
    """Return a server's options, but for those that lazynb fills in itself."""
    return {
        name: Option(KINDS[kind] if isinstance(kind, str) else Literal[tuple(kind)], text or name)
        for name, (kind, text) in listed(engine).items()
        if name not in ours
    }


def arguments(engine: str, values: Mapping[str, Any]) -> list[str]:
    """Write options as a command line."""
    kinds = listed(engine)
    argv = []
    for name, value in values.items():
        flag, kind = f"--{name.replace('_', '-')}", kinds[name][0]
        if value is True:
            argv.append(flag)
        elif value is False:
            argv += [f"--no-{flag[2:]}"] if kind == "bool" else []
        elif isinstance(value, list):
            argv += [flag, *map(str, value)]
        else:
            argv.append(f"{flag}={json.dumps(value) if isinstance(value, dict) else value}")
    return argv


def launched(module: str, model: Model, python: str, key_flag: str = "") -> tuple[list[str], str]:
    """Return the beginning of a command that starts a server, and the folder of the model that it is to serve.

    GGUF weights are unpacked first; a trainer finds and leaves them at the same place.
    """
    argv = [python, str(LAUNCH), module]
    argv += [f"--lazynb-key={key_flag}"] if key_flag else []
    if model.format != "gguf":
        return argv, model.path
    folder = config.cache_dir / f"{Path(model.path).stem}-full"
    return [*argv, "--lazynb-gguf", model.path, "--lazynb-unpacked", str(folder)], str(folder)
