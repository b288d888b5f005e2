"""What every run does, in threads as on an event loop.

It looks whether the flow was cancelled, fills in what is bound, measures, and gives an exception a
note that says where in the flow it happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from lazynb.flow.bound import bind
from lazynb.flow.frame import Call, Fork, Frame, Runnable, current
from lazynb.flow.trace import StepTrace, Trace, arguments_summary
from lazynb.session import current_scope

if TYPE_CHECKING:
    from types import TracebackType

_NOTE = "In the flow "


class Timed:
    """Measures a block and notes how it ended."""

    def __init__(self, trace: StepTrace) -> None:
        self.trace = trace
        self.taken = ""
        self.value: Any = None

    def took(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what is passed, before anything can change it."""
        self.taken = arguments_summary(args, kwargs) or "()"
        if not self.trace.runs:
            self.trace.input = self.taken

    def __enter__(self) -> Self:
        self.begun = self.trace.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.trace.end(self.begun, self.taken, self.value, error)
        if isinstance(error, Exception) and not any(
            note.startswith(_NOTE) for note in getattr(error, "__notes__", ())
        ):
            error.add_note(_NOTE + self.where())

    def where(self) -> str:
        """Say which part of which flow this is."""
        raise NotImplementedError


class FlowRun(Timed):
    """A run of a whole flow."""

    def __init__(
        self,
        flow: Runnable,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str,
        trace: Trace,
    ) -> None:
        super().__init__(trace.whole)
        self.took(args, kwargs)
        self.frame = Frame(flow._key, name, args, kwargs, current.get(), trace)
        self.plan = flow._plan(self.frame)

    def __enter__(self) -> Self:
        self._token = current.set(self.frame)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        current.reset(self._token)

    def next(self, value: Any) -> Call | Fork | None:
        """Return what the plan asks for next, or None when it ended."""
        try:
            return self.plan.send(value)
        except StopIteration as end:
            self.value = end.value
            return None

    def where(self) -> str:
        """Say which flow this is."""
        return self.frame.path()


class StepRun(Timed):
    """A run of one step."""

    def __init__(self, call: Call, frame: Frame) -> None:
        if (scope := current_scope()) is not None:
            scope.check()
        super().__init__(frame.trace.step(call.step.index))
        self.call = call
        self.frame = frame

    def resolve(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Return what is called, and with what."""
        call = self.call
        item, args, kwargs = call.step.item, call.args, call.kwargs
        if call.prepare is not None:
            args, kwargs = call.prepare()
        while isinstance(item, bind):
            item, args, kwargs = item.apply(args, kwargs)
        self.took(args, kwargs)
        return item, args, kwargs

    def inside(self) -> tuple[str, Trace]:
        """Return the name and the trace of the flow that the step is."""
        return self.call.step.label, self.frame.trace.inside(self.call.step.index)

    def where(self) -> str:
        """Say which step this is, and what it was called with."""
        taken = f", called with {self.taken}" if self.taken else ""
        return self.frame.path(self.call.step.label) + taken
