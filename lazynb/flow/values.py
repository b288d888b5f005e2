"""Values that spread: what one step returns as several arguments of the next.

`parallel` returns a `package`, so that `pipeline(parallel(f, g), h)` calls `h(f(x), g(x))`. A
plain tuple does not spread: a step that returns one hands over one value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class package(tuple[Any, ...]):  # noqa: N801, SLOT001 - named as its users write it
    """A tuple that spreads to positional arguments of the next step.

    >>> package(1, 2) == package([1, 2]) == (1, 2)
    True
    """

    def __new__(cls, *items: Any) -> Self:
        """Make a package of the arguments, or of the one tuple or list that they are."""
        if len(items) == 1 and isinstance(items[0], (tuple, list)):
            return cls.of(items[0])
        return cls.of(items)

    @classmethod
    def of(cls, items: Iterable[Any]) -> Self:
        """Make a package of the items of an iterable, also of a single one that is a tuple itself."""
        return super().__new__(cls, items)


class kwargs(dict[str, Any]):  # noqa: N801 - named as its users write it
    """A dict that spreads to keyword arguments of the next step."""


def spread(value: Any) -> Arguments:
    """Return the arguments that a value becomes for the next step."""
    if isinstance(value, package):
        return tuple(value), {}
    if isinstance(value, kwargs):
        return (), dict(value)
    return (value,), {}


def gather(args: tuple[Any, ...]) -> Any:
    """Return the one value that positional arguments are: itself, or a package."""
    return args[0] if len(args) == 1 else package.of(args)
