"""An engine is a value, not a framework.

Given a model and options it says what to run: the argument list, the environment variables and the
request whose answer means that the service is ready. The file of an engine fills in one `Engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

import msgspec

from lazynb.errors import OptionError
from lazynb.hub import Format, Model, ModelType
from lazynb.jobs.spec import Command


@dataclass(frozen=True)
class Option:
    """One of an engine's options, under the engine's own name: its type and one line of help."""

    type: Any
    help: str

    def convert(self, value: Any) -> Any:
        """Return a value as the option's type; what was typed on a magic's line arrives as text.

        Raises
        ------
        ValueError
            When it does not fit.
        """
        typed = isinstance(value, str)
        if typed and get_origin(self.type) is list:
            value = value.split(",")
        return msgspec.convert(value, self.type, strict=not typed)

    def __str__(self) -> str:
        words = get_args(self.type) if get_origin(self.type) is Literal else ()
        return f"{self.help} ({', '.join(words)})" if words else self.help


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What an engine takes of a machine, as far as it can be said before it starts.

    Parameters
    ----------
    overhead : int
        Bytes of the program and its libraries, beside weights and context; on a GPU: on each of them.
    cache : callable, optional
        (model, checked options) → tokens of context that the engine keeps room for without a GPU.
    context : str
        The option that sets the tokens of context.
    gpu : bool
        Whether it runs on a GPU where there is one.
    parallel : tuple of str
        The options whose product is the number of GPUs that it runs on; the first one splits a model.
    share : str
        The option that sets the part of a GPU's memory that it takes for itself.
    """

    overhead: int = 1 << 30
    cache: Callable[[Model, Mapping[str, Any]], int] | None = None
    context: str = ""
    gpu: bool = False
    parallel: tuple[str, ...] = ()
    share: str = ""


Recipe = Callable[[Model, Mapping[str, Any], str, str], Command]
"""(model, checked options, interpreter, the service's name) → what to run."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An external program that serves models.

    Parameters
    ----------
    name : str
        How the user calls it; upper and lower case do not matter.
    types, formats : tuple of str
        The models that it serves, the format it is best at first.
    package : str
        What its environment can import when the engine is installed there.
    requirement : str
        What `pip install` installs it by.
    options : dict
        The options that it passes through, by their own names.
    aliases : dict
        Other names of options → the names in `options`.
    command : callable
        Says what to run.
    footprint : Footprint
        What it takes of the machine.
    """

    name: str
    types: tuple[ModelType, ...]
    formats: tuple[Format, ...]
    package: str
    requirement: str
    options: Mapping[str, Option] = field(repr=False)
    command: Recipe = field(repr=False)
    aliases: Mapping[str, str] = field(default_factory=dict, repr=False)
    footprint: Footprint = field(default=Footprint(), repr=False)

    def serves(self, model: Model) -> bool:
        """Say whether this engine can run that model."""
        return model.type in self.types and model.format in self.formats

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options under their first names, converted to their types.

        Raises
        ------
        OptionError
            For an option that does not exist (lists the near ones), is given twice or has the wrong
            type.
        """
        checked: dict[str, Any] = {}
        for given, value in options.items():
            key = given.replace("-", "_")
            key = self.aliases.get(key, key)
            if key not in self.options:
                raise self._unknown(given)
            if key in checked:
                raise OptionError(f"{self.name}: {key} is given twice", hint=f"Drop {given}.")
            checked[key] = self._convert(key, value)
        return checked

    def _convert(self, name: str, value: Any) -> Any:
        try:
            return self.options[name].convert(value)
        except ValueError as error:
            message = f"{self.name}: {name} = {value!r} does not fit: {error}"
            raise OptionError(message, hint=f"{name}: {self.options[name]}") from None

    def _unknown(self, name: str) -> OptionError:
        known = [*self.options, *self.aliases]
        near = get_close_matches(name.replace("-", "_"), known, n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else f"It has: {', '.join(self.options)}."
        return OptionError(f"{self.name} has no option {name!r}", hint=hint)
