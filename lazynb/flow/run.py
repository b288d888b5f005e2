"""Running a plan in this thread, and in those that it forks."""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from lazynb.errors import FlowError
from lazynb.flow.frame import Call, Fork, Frame, Runnable
from lazynb.flow.threads import run_all
from lazynb.flow.timed import FlowRun, StepRun
from lazynb.session import Scope, enter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lazynb.flow.trace import Trace


def run(
    flow: Runnable, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, trace: Trace
) -> Any:
    """Run a flow in this thread and those that it forks."""
    with FlowRun(flow, args, kwargs, name, trace) as state:
        request = state.next(None)
        while request is not None:
            if isinstance(request, Call):
                value = perform(request, state.frame)
            else:
                value = _fork(request, state.frame)
            request = state.next(value)
    return state.value


def perform(call: Call, frame: Frame) -> Any:
    """Call one step."""
    with StepRun(call, frame) as state:
        item, args, kwargs = state.resolve()
        if isinstance(item, Runnable):
            value = run(item, args, kwargs, *state.inside())
        else:
            value = item(*args, **kwargs)
            if isinstance(value, CoroutineType):
                value.close()
                raise FlowError(
                    f"The step {call.step.label!r} is an async function",
                    hint="Await the flow: `await flow.acall(…)`.",
                )
        state.value = value
    return value


def _fork(fork: Fork, frame: Frame) -> list[Any]:
    """Make calls at once, each with a copy of this thread's context."""
    scope = Scope()
    context = copy_context()
    context.run(enter, scope)

    def task(call: Call) -> Iterable[Callable[[], Any]]:
        value = context.copy().run(perform, call, frame)
        return [partial(task, following) for following in fork.done(call, value)]

    try:
        if fork.limit == 1:
            _one_by_one(partial(task, call) for call in fork.calls)
        else:
            run_all([partial(task, call) for call in fork.calls], fork.limit)
    except BaseException:
        scope.cancel()
        raise
    finally:
        scope.leave()
    return fork.values


def _one_by_one(tasks: Iterable[Callable[[], Any]]) -> None:
    waiting = deque(tasks)
    while waiting:
        waiting.extend(waiting.popleft()())
