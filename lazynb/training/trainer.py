"""A trainer is an engine that ends: the same kind of value, which says what to run for a plan."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from lazynb.engines.base import Engine
from lazynb.errors import EngineNotInstalledError, OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lazynb.hub import Model, ModelType
    from lazynb.training.data import Dataset

TRAINERS = ("llamafactory", "flagembedding")


class Planner(Protocol):
    """Writes data and configuration into a run's folder; returns the plan that the program carries out."""

    def __call__(  # noqa: D102
        self, model: Model, dataset: Dataset, options: Mapping[str, Any], folder: Path
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Trainer(Engine):
    """An external program that fine-tunes models.

    Parameters
    ----------
    shapes : tuple of str
        The forms of data that it takes.
    plan : Planner
        Prepares a run.
    """

    shapes: tuple[str, ...]
    plan: Planner


def get(name: str) -> Trainer:
    """Return the trainer of that name.

    Raises
    ------
    OptionError
        There is none; the near names are suggested.
    EngineNotInstalledError
        For Collie, which is deprecated.
    """
    key = name.lower()
    if key == "collie":
        warnings.warn("finetune.collie is deprecated", DeprecationWarning, stacklevel=3)
        raise EngineNotInstalledError(
            "Collie is not maintained and does not run with today's transformers",
            hint="Use finetune.llamafactory.",
        )
    if key not in TRAINERS:
        near = get_close_matches(key, TRAINERS, n=2) or TRAINERS
        raise OptionError(f"There is no trainer {name!r}", hint=f"Did you mean {', '.join(near)}?")
    trainer: Trainer = import_module(f"lazynb.training.{key}").trainer
    return trainer


def choose(kind: ModelType) -> Trainer:
    """Return the trainer for a type of model."""
    for name in TRAINERS:
        if kind in get(name).types:
            return get(name)
    raise OptionError(f"No trainer takes a model of type {kind!r}")
