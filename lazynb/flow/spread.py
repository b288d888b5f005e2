"""Several at once: `parallel`, `diverter` and `warp`.

Each of them returns a `package`, in the order of its items, that spreads to the arguments of the
next step; `.sum`, `.aslist`, `.astuple`, `.asdict` and `.join()` make something else of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Self

from lazynb.errors import FlowError
from lazynb.flow.base import Flow
from lazynb.flow.frame import Call, Fork, Frame, Step
from lazynb.flow.sequence import Pipeline
from lazynb.flow.threads import MAX_THREADS
from lazynb.flow.values import package, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynb.flow.frame import Plan

WARP_LIMIT = 16  # what one service serves at once; `_concurrent=n` for another number


class Parallel(Flow):
    """All steps get the same input, at the same time.

    Parameters
    ----------
    *steps, **named : callable
        The branches.
    _concurrent : bool or int
        How many run at once; False for one after the other in this thread.

    Examples
    --------
    >>> Parallel(min, max)([3, 1, 2])
    (1, 3)
    >>> Parallel(low=min, high=max).asdict([3, 1, 2])
    {'low': 1, 'high': 3}
    """

    _limit = MAX_THREADS

    def __init__(self, *steps: Any, _concurrent: bool | int = True, **named: Any) -> None:
        super().__init__(*steps, **named)
        self._combine: Callable[[list[Any]], Any] = package.of
        self._combined = ""
        self._concurrent = self._limit if _concurrent is True else max(1, int(_concurrent))

    @classmethod
    def sequential(cls, *steps: Any, **named: Any) -> Self:
        """Make one whose items run one after the other."""
        return cls(*steps, _concurrent=False, **named)

    # What is made of the results. Each returns a flow of its own: looking at `p.sum` changes nothing.

    @property
    def aslist(self) -> Self:
        """The same flow, returning a list."""
        return self._combining(list, ".aslist")

    @property
    def astuple(self) -> Self:
        """The same flow, returning a plain tuple, which does not spread."""
        return self._combining(tuple, ".astuple")

    @property
    def asdict(self) -> Self:
        """The same flow, returning a dict by the names of its steps."""
        flow = self._combining(list, ".asdict")
        flow._combine = lambda values: dict(zip(flow._all_names(), values, strict=True))
        return flow

    @property
    def sum(self) -> Self:
        """The same flow, returning the sum of the results: numbers, texts, lists, …"""
        return self._combining(_sum, ".sum")

    def join(self, separator: str = "") -> Self:
        """Return the same flow, returning the results as one text."""
        text = f".join({separator!r})"
        return self._combining(lambda values: separator.join(map(str, values)), text)

    def _combining(self, combine: Callable[[list[Any]], Any], text: str) -> Self:
        flow = copy(self)
        flow._steps = [copy(step) for step in self._steps]
        flow._combine, flow._combined = combine, text
        return flow

    def _all_names(self) -> list[str]:
        if len(self._names) != len(self._steps):
            raise FlowError("asdict needs a name for every step", hint="parallel(a=f, b=g).asdict")
        return self._names

    @property
    def _suffix(self) -> str:
        return self._combined

    # The run.

    def _plan(self, frame: Frame) -> Plan:
        values = yield Fork(self._calls(frame), self._concurrent)
        return self._combine(values)

    def _calls(self, frame: Frame) -> Iterable[Call]:
        return [Call(step, frame.args, frame.kwargs) for step in self._steps]


class Diverter(Parallel):
    """The first step gets the first input, the second one the second, and so on.

    The inputs are the arguments, or the items of one tuple or list, or those of a dict by the names of the steps.

    Examples
    --------
    >>> Diverter(str.upper, str.lower)('One', 'Two')
    ('ONE', 'two')
    """

    def _calls(self, frame: Frame) -> Iterable[Call]:
        value = frame.input
        if isinstance(value, Mapping):
            if missing := value.keys() ^ set(self._all_names()):
                raise FlowError(
                    f"diverter: inputs and steps differ in {', '.join(sorted(map(str, missing)))}"
                )
            inputs = [value[name] for name in self._names]
        else:
            inputs = _items(value, "diverter")
        if len(inputs) != len(self._steps):
            raise FlowError(f"diverter: {len(inputs)} inputs for {len(self._steps)} steps")
        return [_call(step, item, frame) for step, item in zip(self._steps, inputs, strict=True)]


class Warp(Parallel):
    """One step gets every input, several at the same time; more steps are one pipeline.

    The inputs are the arguments, or the items of one iterable.

    Examples
    --------
    >>> Warp(str.upper)('a', 'b', 'c')
    ('A', 'B', 'C')
    """

    _limit = WARP_LIMIT

    def _calls(self, frame: Frame) -> Iterable[Call]:
        each = Pipeline()  # of the same key: `w.input` is the one input that is worked on
        each._key, each._steps = self._key, self._steps
        step = Step(each, title="item", index=0)
        return [_call(step, item, frame) for item in _items(frame.input, "warp")]

    def _all_names(self) -> list[str]:
        raise FlowError("warp has no names to make a dict of", hint="Use .aslist.")


def _items(value: Any, kind: str) -> list[Any]:
    """Return the inputs that one value is split into."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return list(value)
    raise FlowError(
        f"{kind}: a {type(value).__name__} cannot be split into inputs",
        hint=f"Pass several arguments, or one list: {kind}(f)([a, b]).",
    )


def _call(step: Step, item: Any, frame: Frame) -> Call:
    args, kwargs = spread(item)
    return Call(step, args, {**kwargs, **frame.kwargs})


def _sum(values: list[Any]) -> Any:
    if values and isinstance(values[0], str):
        return "".join(map(str, values))
    return reduce(add, values) if values else 0
