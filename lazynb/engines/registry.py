"""The engines that there are: lazynb's own, and those that other packages add.

A package adds one with an entry point in the group `lazynb.engines` that names an `Engine`. Nothing
of an engine is imported before it is asked for.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module, metadata

from lazynb.engines.base import Engine
from lazynb.errors import EngineNotInstalledError, OptionError
from lazynb.methods import deploy

GROUP = "lazynb.engines"
BUILT_IN = ("llamacpp", "embedding", "rerank", "vllm", "lmdeploy", "transformers")
"""Modules beside this one, each with an `engine`; in the order in which `choose` asks them."""


def names() -> list[str]:
    """Return the names of all engines, lazynb's own first."""
    added = (point.name for point in metadata.entry_points(group=GROUP))
    return list(dict.fromkeys([*BUILT_IN, *added]))


def get(name: str) -> Engine:
    """Return an engine by its name; upper and lower case do not matter.

    Raises
    ------
    OptionError
        When there is none of that name; lists the near ones.
    EngineNotInstalledError
        For a method of `lazynb.deploy` that no engine here carries out; the hint says what does.
    """
    wanted = name.casefold()
    if wanted in BUILT_IN:
        engine = import_module(f"lazynb.engines.{wanted}").engine
        assert isinstance(engine, Engine)  # noqa: S101
        return engine
    for point in metadata.entry_points(group=GROUP):
        if point.name.casefold() == wanted:
            return _added(point)
    if wanted != "auto" and wanted in map(str.lower, dir(deploy)):
        raise _missing(wanted)
    known = names()
    near = get_close_matches(wanted, known, n=3) or known
    raise OptionError(f"There is no engine {name!r}", hint=f"Did you mean {', '.join(near)}?")


def _missing(name: str) -> EngineNotInstalledError:
    connect = f"deploy_method('{name}', url='http://localhost:8000/v1')"
    message = f"This version of lazynb has no engine {name}"
    return EngineNotInstalledError(message, hint=f"Connect to a server that has: {connect}.")


def _added(point: metadata.EntryPoint) -> Engine:
    package = point.dist.name if point.dist else point.value
    try:
        engine = point.load()
    except Exception as error:
        message = f"The engine {point.name} of {package} cannot be loaded: {error}"
        raise OptionError(message, hint=f"Mend or uninstall {package}.") from error
    if not isinstance(engine, Engine):
        raise OptionError(f"{point.value} of {package} is not a lazynb.engines.Engine")
    return engine
