"""What every formatter can do: be called, and be put before or behind another one with `|`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Formatter:
    """Base of all formatters; a subclass says in `format` what it makes of a value."""

    def format(self, value: Any) -> Any:
        """Return what the value becomes: text comes from a model, anything else from a step before."""
        raise NotImplementedError

    def __call__(self, *values: Any) -> Any:
        """Format a value; several ones (from a flow's `parallel`) count as one tuple."""
        return self.format(values[0] if len(values) == 1 else values)

    def __or__(self, other: Any) -> Chain:
        return Chain(self, other) if _joins(other) else NotImplemented

    def __ror__(self, other: Any) -> Chain:
        return Chain(other, self) if _joins(other) else NotImplemented

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Chain(Formatter):
    """Formatters and functions one after the other: each gets what the one before returned."""

    def __init__(self, *steps: Callable[..., Any]) -> None:
        self.steps: tuple[Callable[..., Any], ...] = tuple(
            part for step in steps for part in (step.steps if isinstance(step, Chain) else (step,))
        )

    def __call__(self, *values: Any) -> Any:
        """Run all steps; the first one gets the arguments as they are."""
        first, *others = self.steps
        value = first(*values)
        for step in others:
            value = step(value)
        return value

    def __repr__(self) -> str:
        return " | ".join(getattr(step, "__name__", None) or repr(step) for step in self.steps)


def _joins(other: Any) -> bool:
    """Tell whether this is ours to chain: flows and modules join a formatter in their own way."""
    if isinstance(other, Formatter | type):
        return callable(other)
    own = any("__ror__" in base.__dict__ for base in type(other).__mro__)
    return callable(other) and not own
