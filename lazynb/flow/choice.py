"""One of several: `switch` and `ifs`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from lazynb.errors import FlowError
from lazynb.flow.base import Flow
from lazynb.flow.frame import Call, Frame, Step, label
from lazynb.flow.sequence import split
from lazynb.flow.values import spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynb.flow.frame import Plan

DEFAULT = "default"


class Switch(Flow):
    """The step of the first case that fits; None when none does.

    Parameters
    ----------
    *cases
        A dict, or `case, step, case, step, …`. A case is a value that the input equals, a function that returns
        something true for it, or 'default', which fits when no other does.
    conversion : callable, optional
        What is judged is `conversion(input)`.
    judge_on_full_input : bool
        False: the first argument is judged, and the step gets the rest.

    Examples
    --------
    >>> Switch({'up': str.upper, 'default': str.lower}, judge_on_full_input=False)('up', 'Text')
    'TEXT'
    """

    _accepts_steps = False

    def __init__(
        self,
        *cases: Any,
        conversion: Callable[..., Any] | None = None,
        judge_on_full_input: bool = True,
    ) -> None:
        if len(cases) == 1 and isinstance(cases[0], dict):
            cases = tuple(part for case in cases[0].items() for part in case)
        if len(cases) % 2:
            raise FlowError(
                "A case of the switch has no step", hint="switch(case, step, case, step, …)"
            )
        super().__init__()
        self._cases: list[Any] = []
        self._conversion = Step(conversion, title="conversion") if conversion else None
        self._judge_on_full_input = judge_on_full_input
        for case, step in zip(cases[::2], cases[1::2], strict=True):
            self._add_case(case, step)

    @property
    def case(self) -> _Cases:
        """Add a case in a `with` block: `s.case[cond, f]`, `s.case[cond:f]`, `s.case(cond, f)`.

        `with pipeline() as s.case['a']:` builds its step in place.
        """
        return _Cases(self)

    def _add_case(self, case: Any, item: Any) -> None:
        self._add("", item).title = label(item)
        self._cases.append(case)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise FlowError(
                "The steps of a switch are cases", hint="Write s.case[condition, step]."
            )
        super().__setattr__(name, value)

    def _plan(self, frame: Frame) -> Plan:
        args, judged = frame.args, frame.input
        if not self._judge_on_full_input:
            judged, rest = split(judged, "The input of the switch")
            args, _ = spread(rest)
        if self._conversion:
            judged = yield Call(self._conversion, *spread(judged))
        chosen = None
        for case, step in zip(self._cases, self._steps, strict=True):
            if isinstance(case, str) and case == DEFAULT:
                chosen = step  # for now: a later case may fit
                continue
            if callable(case):
                fits = yield Call(Step(case, title="condition"), *spread(judged))
            else:
                fits = _equal(case, judged)
            if fits:
                chosen = step
                break
        return (yield Call(chosen, args, frame.kwargs)) if chosen else None


class _Cases:
    """The syntax of `s.case`."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def __call__(self, case: Any, item: Any) -> None:
        self._switch._add_case(case, item)

    def __setitem__(self, case: Any, item: Any) -> None:
        self._switch._add_case(case, item)

    def __getitem__(self, key: Any) -> None:
        if isinstance(key, slice):  # [case:step] and [case::step]
            self(key.start, key.step if key.stop is None else key.stop)
        elif isinstance(key, tuple) and len(key) == 2:  # noqa: PLR2004
            self(*key)
        else:
            raise FlowError("Not a case", hint="Write s.case[condition, step].")


class Ifs(Flow):
    """`tpath` where the condition holds, `fpath` otherwise.

    Parameters
    ----------
    cond : callable or bool
        Gets the input, or nothing where it takes no argument.
    tpath, fpath : callable
        The steps; the one that is taken gets the input.

    Examples
    --------
    >>> Ifs(str.isupper, str.lower, str.upper)('Text')
    'TEXT'
    """

    _accepts_steps = False

    def __init__(self, cond: Any, tpath: Any, fpath: Any) -> None:
        super().__init__(tpath, fpath)
        self._condition = Step(cond, title="condition")
        self._wants_input = callable(cond) and _takes_arguments(cond)

    def _plan(self, frame: Frame) -> Plan:
        holds = self._condition.item
        if self._wants_input:
            holds = yield Call(self._condition, frame.args, frame.kwargs)
        elif callable(holds):
            holds = yield Call(self._condition)
        return (yield Call(self._steps[0 if holds else 1], frame.args, frame.kwargs))


def _takes_arguments(function: Callable[..., Any]) -> bool:
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a builtin that does not say
        return True


def _equal(case: Any, value: Any) -> bool:
    """Compare without falling over arrays and other values whose `==` is no bool."""
    try:
        return bool(case == value)
    except Exception:  # noqa: BLE001 - whatever a foreign __eq__ raises
        return False
