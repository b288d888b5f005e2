"""One after the other: `pipeline`, and `loop`, a pipeline that turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynb.errors import FlowError
from lazynb.flow.base import Flow
from lazynb.flow.bound import Reference
from lazynb.flow.frame import Call, Frame, Step
from lazynb.flow.values import package, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from lazynb.flow.frame import Plan


class Pipeline(Flow):
    """Each step gets what the one before returned; keyword arguments of the call go to the first.

    Examples
    --------
    >>> Pipeline(str.strip, str.upper)('  hello ')
    'HELLO'
    """

    _chained = False

    @classmethod
    def chain(cls, left: Any, right: Any) -> Pipeline:
        """Make the pipeline of `left | right`; `a | b | c` is one of three steps."""
        made = getattr(left, "_chained", False) and isinstance(left, Pipeline)
        flow = cls(*(step.item for step in left._steps), right) if made else cls(left, right)
        flow._chained = True
        return flow

    def output(self, step: Any, unpack: bool = False) -> Reference:
        """Refer to what a step returned, for `bind`.

        Parameters
        ----------
        step : str or callable
            The step's name, or the step itself.
        unpack : bool
            Pass several values that it returned (`parallel`, `package`) as several arguments.
        """
        if isinstance(step, Reference):  # `p.f` of a function, inside the block
            step = step._step and step._step.name
        for found in reversed(self._steps):
            if found.item is step or (isinstance(step, str) and found.name == step):
                return self._output(found, unpack=unpack)
        raise FlowError(f"There is no step {step!r}", hint=f"Steps: {', '.join(self._names)}.")

    def _plan(self, frame: Frame) -> Plan:
        return (yield from self._pass(frame, frame.args, frame.kwargs))

    def _pass(
        self, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Generator[Call, Any, Any]:
        value = package.of(args) if len(args) != 1 else args[0]
        for step in self._steps:
            value = yield Call(step, args, kwargs)
            frame.outputs[step.index] = value
            args, kwargs = spread(value)
        return value


class Loop(Pipeline):
    """A pipeline whose output is its next input, until `stop_condition` holds or `count` turns are done.

    Parameters
    ----------
    *steps : callable
        What is done in each turn.
    stop_condition : callable, optional
        Gets the output of a turn; the loop ends when it returns something true.
    count : int, optional
        How many turns there are at most.
    judge_on_full_input : bool
        False: a turn returns the condition's argument first and then the output proper.

    Examples
    --------
    >>> Loop(lambda x: x * 2, stop_condition=lambda x: x > 10)(1)
    16
    """

    def __init__(
        self,
        *steps: Any,
        stop_condition: Callable[..., Any] | None = None,
        count: int | None = None,
        judge_on_full_input: bool = True,
        **named: Any,
    ) -> None:
        if stop_condition is None and count is None:
            raise FlowError("The loop never ends", hint="Give it a stop_condition or a count.")
        if count is not None and count < 1:
            raise FlowError(f"A loop of {count} turns", hint="count is 1 or more.")
        super().__init__(*steps, **named)
        self._stop = Step(stop_condition, title="stop_condition") if stop_condition else None
        self._count = count
        self._judge_on_full_input = judge_on_full_input

    def _plan(self, frame: Frame) -> Plan:
        args, kwargs = frame.args, frame.kwargs
        turn = 0
        while True:
            value = yield from self._pass(frame, args, kwargs)
            judged = value
            if not self._judge_on_full_input:
                judged, value = split(value, "The output of a turn")
            turn += 1
            if turn == self._count:
                return value
            if self._stop and (yield Call(self._stop, *spread(judged))):
                return value
            args, kwargs = spread(value)


def split(value: Any, what: str) -> tuple[Any, Any]:
    """Split `(judged, value…)` for `judge_on_full_input=False`."""
    if not isinstance(value, (tuple, list)) or len(value) < 2:  # noqa: PLR2004
        raise FlowError(
            f"{what} is not a tuple of two or more values",
            hint="judge_on_full_input=False: the first one is judged, the rest is passed on.",
        )
    return value[0], value[1] if len(value) == 2 else package.of(value[1:])  # noqa: PLR2004
