"""`a | b`: one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazynb.flow.bound import bind
    from lazynb.flow.sequence import Pipeline


class Chainable:
    """A mixin for callables: `a | b` is a pipeline, and `a.bind(x=…)` fixes some of a's arguments."""

    def __or__(self, other: Any) -> Any:
        return _join(self, other) if callable(other) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return _join(other, self) if callable(other) else NotImplemented

    def bind(self, *args: Any, **kwargs: Any) -> bind:
        """Fix arguments, as `self | bind(…)` does."""
        from lazynb.flow.bound import bind

        return bind.of(self, args, kwargs)


def _join(left: Any, right: Any) -> bind | Pipeline:
    from lazynb.flow.bound import bind
    from lazynb.flow.sequence import Pipeline

    if isinstance(right, bind) and not right.complete:
        return right.to(left)
    return Pipeline.chain(left, right)
