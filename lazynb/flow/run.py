"""The two ways to run a plan: in threads, and on an event loop.

Both do the same for every step: look whether the flow was cancelled, fill in what is bound,
measure, and give an exception a note that says where in the flow it happened.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from contextvars import copy_context
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Self

from lazynb.errors import FlowError
from lazynb.flow.bound import bind
from lazynb.flow.frame import Call, Fork, Frame, Runnable, current
from lazynb.flow.threads import run_all
from lazynb.flow.trace import StepTrace, Trace, arguments_summary
from lazynb.session import Scope, current_scope, enter, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType


_NOTE = "In the flow "


class _Timed:
    """Measures a block and notes how it ended."""

    def __init__(self, trace: StepTrace) -> None:
        self.trace = trace
        self.value: Any = None

    def __enter__(self) -> Self:
        self.begun = self.trace.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.trace.end(self.begun, self.value, error)
        if isinstance(error, Exception) and not any(
            note.startswith(_NOTE) for note in getattr(error, "__notes__", ())
        ):
            error.add_note(_NOTE + self.where())

    def where(self) -> str:
        """Say which part of which flow this is."""
        raise NotImplementedError


class _Run(_Timed):
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
        self.trace.took(args, kwargs)
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


class _Step(_Timed):
    """A run of one step."""

    def __init__(self, call: Call, frame: Frame) -> None:
        if (scope := current_scope()) is not None:
            scope.check()
        super().__init__(frame.trace.step(call.step.index))
        self.call = call
        self.frame = frame
        self.input = ""

    def resolve(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Return what is called, and with what."""
        call = self.call
        item, args, kwargs = call.step.item, call.args, call.kwargs
        if call.prepare is not None:
            args, kwargs = call.prepare()
        while isinstance(item, bind):
            item, args, kwargs = item.apply(args, kwargs)
        self.trace.took(args, kwargs)
        self._given = args, kwargs
        return item, args, kwargs

    _given: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def inside(self) -> tuple[str, Trace]:
        """Return the name and the trace of the flow that the step is."""
        return self.call.step.label, self.frame.trace.inside(self.call.step.index)

    def where(self) -> str:
        """Say which step this is, and what it was called with."""
        given = f", called with ({arguments_summary(*self._given)})" if self._given else ""
        return self.frame.path(self.call.step.label) + given


def run(
    flow: Runnable, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, trace: Trace
) -> Any:
    """Run a flow in this thread and those that it forks."""
    with _Run(flow, args, kwargs, name, trace) as state:
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
    with _Step(call, frame) as state:
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


async def arun(
    flow: Runnable, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, trace: Trace
) -> Any:
    """Run a flow on the event loop of the caller."""
    with _Run(flow, args, kwargs, name, trace) as state:
        request = state.next(None)
        while request is not None:
            if isinstance(request, Call):
                value = await _aperform(request, state.frame)
            else:
                value = await _afork(request, state.frame)
            request = state.next(value)
    return state.value


async def arun_alone(
    flow: Runnable, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, trace: Trace
) -> Any:
    """Run a flow so that cancelling the task reaches the steps that run in threads too."""
    scope = Scope()
    try:
        with within(scope):
            return await arun(flow, args, kwargs, name, trace)
    except BaseException:
        scope.cancel()
        raise
    finally:
        scope.leave()


async def _aperform(call: Call, frame: Frame) -> Any:
    with _Step(call, frame) as state:
        item, args, kwargs = state.resolve()
        if isinstance(item, Runnable):
            value = await arun(item, args, kwargs, *state.inside())
        else:
            value = await invoke(item, args, kwargs)
        state.value = value
    return value


async def _afork(fork: Fork, frame: Frame) -> list[Any]:
    """Make calls at once, each in a task of its own."""
    scope = Scope()
    context = copy_context()
    context.run(enter, scope)
    limit = asyncio.Semaphore(fork.limit)
    tasks: list[asyncio.Task[tuple[Call, Any]]] = []

    async def work(call: Call) -> tuple[Call, Any]:
        async with limit:
            return call, await _aperform(call, frame)

    def start(calls: Iterable[Call]) -> set[asyncio.Task[tuple[Call, Any]]]:
        started = [asyncio.create_task(work(call), context=context.copy()) for call in calls]
        tasks.extend(started)
        return set(started)

    try:
        pending = start(fork.calls)
        while pending:
            ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                pending |= start(fork.done(*task.result()))
    except BaseException:
        scope.cancel()
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        scope.leave()
    return fork.values


async def invoke(item: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call anything callable without blocking the event loop.

    An object's `acall` and async functions are awaited; a plain function runs in a thread.
    """
    if (acall := getattr(item, "acall", None)) is not None:
        return await acall(*args, **kwargs)
    if inspect.iscoroutinefunction(item) or inspect.iscoroutinefunction(
        getattr(item, "__call__", None)  # noqa: B004 - whether it is async, not whether it is there
    ):
        return await item(*args, **kwargs)
    value = await asyncio.to_thread(_call, item, args, kwargs)
    return await value if inspect.isawaitable(value) else value


def _call(item: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return item(*args, **kwargs)
    except StopIteration as error:  # no future can carry it
        raise RuntimeError("The step raised StopIteration") from error
