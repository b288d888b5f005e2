"""Which Python runs an engine.

In this order: the one that the user configured (`LAZYLLM_LLAMACPP_PYTHON`), the engine's managed
environment under `<home>/envs/`, the kernel's own when it has the engine.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lazynb.config import PREFIX
from lazynb.engines.environment import Environment, environment
from lazynb.errors import EngineNotInstalledError, OptionError

if TYPE_CHECKING:
    from lazynb.engines.base import Engine


def interpreter(engine: Engine) -> str:
    """Return the path of the Python that can import the engine.

    Raises
    ------
    EngineNotInstalledError
        The hint is the line that installs it.
    """
    variable = f"{PREFIX}{engine.name.upper()}_PYTHON"
    if configured := os.environ.get(variable):
        path = Path(configured).expanduser()
        if not os.access(path, os.X_OK) or path.is_dir():
            message = f"{variable} names {configured}, which is not a program"
            raise EngineNotInstalledError(message, hint="Set it to a python, or unset it.")
        return str(path)
    place = _managed(engine.name)
    if place is not None and place.usable:
        return str(place.python)
    importlib.invalidate_caches()  # it may have been installed a moment ago
    if find_spec(engine.package):
        return sys.executable
    hint = f"Install it: %lazyllm install {engine.name} (in a shell: python -m lazynb install {engine.name})"
    if place is None:
        hint = f"Install it: %pip install {engine.requirement}"
    raise EngineNotInstalledError(f"The engine {engine.name} is not installed", hint=hint)


def _managed(engine: str) -> Environment | None:
    """Return the engine's environment; None for one of another package, which lazynb has no pins for."""
    try:
        return environment(engine)
    except OptionError:
        return None
