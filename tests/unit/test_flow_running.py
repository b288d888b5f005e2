"""How flows run: threads, event loops, errors, cancellation, interrupts."""

import asyncio
import os
import signal
import threading
import time
from contextvars import ContextVar

import pytest

from lazynb.errors import FlowError
from lazynb.flow import bind, graph, loop, parallel, pipeline, switch, threads, warp
from lazynb.session import Scope, cancelling, within


def add_one(x):
    return x + 1


def wait(x):
    time.sleep(0.1)
    return x


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# Threads


def test_branches_run_at_the_same_time():
    assert seconds(lambda: parallel(*[wait] * 8)(1)) < 0.4
    assert seconds(lambda: warp(wait)(range(16))) < 0.4
    assert seconds(lambda: parallel.sequential(*[wait] * 3)(1)) >= 0.3


def test_concurrent_bounds_how_many():
    running, most, lock = 0, 0, threading.Lock()

    def count(x):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return x

    assert warp(count, _concurrent=3)(range(20)) == tuple(range(20))
    assert most == 3


def test_steps_of_a_graph_begin_as_soon_as_their_input_is_there():
    g = graph(slow=wait, quick=add_one, after=wait, end=lambda a, b: (a, b))
    g.add_edge(g.start_node_name, ["slow", "quick"])
    g.add_edge("quick", "after")  # waits for `quick` only, not for all of its rank
    g.add_edge(["slow", "after"], "end")
    g.add_edge("end", g.end_node_name)
    assert seconds(lambda: g(1)) < 0.17
    assert g(1) == (1, 2)


@pytest.mark.parametrize("free", [0, 1, 3])
def test_nested_forks_never_wait_for_a_thread(free, monkeypatch):
    monkeypatch.setattr(threads, "_free", threading.BoundedSemaphore(max(free, 1)))
    if not free:
        threads._free.acquire()
    flow = add_one
    for _ in range(4):
        flow = pipeline(parallel(flow, flow, flow).sum, lambda x: [x, x], warp(lambda x: x).sum)
    assert flow(0) == (3 * 2) ** 4


def test_threads_are_given_back(monkeypatch):
    free = threading.BoundedSemaphore(4)
    monkeypatch.setattr(threads, "_free", free)
    for _ in range(5):
        warp(add_one)(range(50))
        with pytest.raises(ZeroDivisionError):
            warp(lambda x: 1 / x)([1, 0, 1])
    deadline = time.monotonic() + 5
    while free._value < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert free._value == 4


def test_every_thread_sees_the_context_of_the_caller_and_cannot_change_it():
    who = ContextVar("who", default="nobody")

    def change(x):
        seen = who.get()
        who.set(f"branch {x}")
        return seen

    who.set("caller")
    assert pipeline(range, warp(parallel(change, change)))(4) == (("caller", "caller"),) * 4
    assert who.get() == "caller"


# Errors


def failing(x):
    raise ValueError(f"bad {x}")


def test_an_error_keeps_its_type_and_says_where_it_was():
    flow = pipeline(
        first=add_one,
        branches=parallel(good=add_one, bad=pipeline(deep=failing | bind())),
    )
    with pytest.raises(ValueError, match="bad 2") as caught:
        flow(1)
    assert caught.value.__notes__ == ["In the flow pipeline > branches > bad > deep, called with 2"]


def test_errors_of_conditions_and_formatters_are_located_too():
    with pytest.raises(ValueError) as caught:
        pipeline(s=switch(failing, add_one))(1)
    assert caught.value.__notes__ == ["In the flow pipeline > s > condition, called with 1"]
    g = graph(a=add_one)
    g.add_edge(g.start_node_name, "a", formatter=failing)
    g.add_edge("a", g.end_node_name)
    with pytest.raises(ValueError) as caught:
        g(1)
    assert caught.value.__notes__ == ["In the flow graph > a"]


def test_a_flow_called_by_a_function_of_a_flow_is_located_in_both():
    inner = pipeline(deep=failing)
    with pytest.raises(ValueError) as caught:
        pipeline(outer=lambda x: inner(x) + 1)(1)
    assert len(caught.value.__notes__) == 1
    assert "pipeline > pipeline > deep" in caught.value.__notes__[0]


def test_stop_iteration_of_a_step_is_an_error_and_not_the_end():
    with pytest.raises(StopIteration):
        pipeline(lambda x: next(iter([])), add_one)(1)
    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(pipeline(lambda x: next(iter([])), add_one).acall(1))


def test_an_error_comes_at_once_and_stops_the_other_branches():
    began, went_on, cancelled = threading.Event(), threading.Event(), threading.Event()

    def module(x):
        with cancelling(cancelled.set):
            began.set()
            cancelled.wait(5)
        return x

    def fail(x):
        began.wait(5)
        return 1 / 0

    flow = parallel(fail, pipeline(module, lambda x: went_on.set()))
    begun = time.perf_counter()
    with pytest.raises(ZeroDivisionError):
        flow(1)
    assert time.perf_counter() - begun < 1
    assert cancelled.wait(1)
    time.sleep(0.05)
    assert not went_on.is_set(), "no further step begins in a cancelled branch"


def test_branches_that_have_not_begun_are_dropped():
    done = []
    with pytest.raises(ZeroDivisionError):
        warp(lambda x: done.append(1 / x), _concurrent=2)([0] + [1] * 1000)
    assert len(done) < 500


def test_an_interrupt_stops_waiting_and_cancels_the_branches():
    cancelled = threading.Event()

    def module(x):
        with cancelling(cancelled.set):
            cancelled.wait(10)

    def interrupt(x):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        cancelled.wait(10)

    flow = parallel(module, module, interrupt)
    begun = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        flow(1)
    assert time.perf_counter() - begun < 2
    assert cancelled.wait(1)


def test_a_cancelled_scope_cancels_what_is_inside_and_what_comes_later():
    called = []
    outer = Scope()
    with within(outer):
        inner = Scope()
        inner.on_cancel(lambda: called.append("inner"))
        forget = inner.on_cancel(lambda: called.append("forgotten"))
    forget()
    outer.on_cancel(failing)
    outer.on_cancel(lambda: called.append("outer"))
    outer.cancel()
    outer.cancel()
    inner.on_cancel(lambda: called.append("late"))
    assert called == ["inner", "outer", "late"]


# acall


async def async_add(x):
    await asyncio.sleep(0.1)
    return x + 1


class Module:
    def __call__(self, x):
        raise AssertionError("acall is there")

    async def acall(self, x):
        return await async_add(x)


class AsyncCallable:
    async def __call__(self, x):
        return await async_add(x)


def test_async_steps_run_concurrently_among_plain_ones():
    flow = pipeline(
        async_add,
        parallel(
            async_add, Module(), AsyncCallable(), add_one, wait, lambda x: async_add(x + 0)
        ).aslist,
        lambda xs: xs,
        warp(pipeline(async_add)).aslist,
        loop(lambda *x: list(x[0]), count=2),
    )

    async def both():
        return await asyncio.gather(flow.acall(0), flow.acall(10))

    begun = time.perf_counter()
    results = asyncio.run(both())
    assert time.perf_counter() - begun < 0.8
    assert results == [[3, 3, 3, 3, 2, 3], [13, 13, 13, 13, 12, 13]]


def test_plain_steps_do_not_block_the_event_loop():
    async def ticks():
        count = 0
        task = asyncio.create_task(pipeline(wait, wait).acall(1))
        while not task.done():
            await asyncio.sleep(0.005)
            count += 1
        return count

    assert asyncio.run(ticks()) > 10


def test_a_plain_call_of_an_async_step_says_what_to_do():
    with pytest.raises(FlowError, match=r"'async_add' is an async function(.|\n)*await flow.acall"):
        pipeline(async_add)(1)


def test_an_error_cancels_the_async_branches():
    ended = []

    async def forever(x):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def fail(x):
        await asyncio.sleep(0.01)
        raise ValueError("x")

    with pytest.raises(ValueError) as caught:
        asyncio.run(pipeline(a=parallel(a=forever, b=fail)).acall(1))
    assert caught.value.__notes__ == ["In the flow pipeline > a > b, called with 1"]
    assert ended == ["cancelled"]


def test_a_cancelled_task_reaches_plain_steps_in_threads():
    cancelled = threading.Event()

    def module(x):
        with cancelling(cancelled.set):
            cancelled.wait(5)

    async def main():
        task = asyncio.create_task(pipeline(parallel(module, async_add)).acall(1))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert seconds(lambda: asyncio.run(main())) < 2
    assert cancelled.wait(1)


def test_async_concurrency_is_bounded_too():
    running, most = 0, 0

    async def count(x):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return x

    assert asyncio.run(warp(count, _concurrent=3).acall(*range(10))) == tuple(range(10))
    assert most == 3
