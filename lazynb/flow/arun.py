"""Running a plan on the event loop of the caller."""

from __future__ import annotations

import asyncio
import inspect
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from lazynb.flow.frame import Call, Fork, Frame, Runnable
from lazynb.flow.timed import FlowRun, StepRun
from lazynb.session import Scope, enter, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lazynb.flow.trace import Trace


async def arun(
    flow: Runnable, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, trace: Trace
) -> Any:
    """Run a flow on the event loop of the caller."""
    with FlowRun(flow, args, kwargs, name, trace) as state:
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
    with StepRun(call, frame) as state:
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
