"""An answer is live while it is made and complete afterwards, whoever reads it and from wherever."""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fault_server import TEXT, FaultServer
from hypothesis import given, settings
from hypothesis import strategies as st

from lazynb.client.endpoint import Endpoint
from lazynb.client.transcript import Transcript
from lazynb.client.wire import Delta
from lazynb.errors import ServiceError
from lazynb.streaming import Answer, ask

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def server():
    server = FaultServer()
    yield server
    server.close()


@pytest.fixture
def fresh():
    """A server of one test, so that what it saw is of this test."""
    server = FaultServer()
    yield server
    server.close()


def endpoint(server, fault):
    return Endpoint(server.url(fault), name="demo", model="m")


# What it holds.


def test_it_is_its_text(server):
    answer = ask(endpoint(server, "good"), HELLO, temperature=0.1)
    assert str(answer.wait(10)) == answer.text == TEXT
    assert answer.done
    assert answer.status == "done"
    assert answer.finish_reason == "stop"
    assert (answer.model, answer.service, answer.messages) == ("m", "demo", HELLO)
    assert answer.params == {"temperature": 0.1}
    assert answer.usage.prompt_tokens == 7
    assert answer.size == len(TEXT)
    assert answer.id in repr(answer)


def test_it_is_returned_at_once_and_grows(server):
    start = time.time()
    answer = ask(endpoint(server, "slow"), HELLO)
    assert time.time() - start < 0.1
    assert answer.status == "waiting"
    assert next(iter(answer.parts())) == ("text", "one ")


def test_its_times_are_those_of_the_tokens(server):
    answer = ask(endpoint(server, "slow"), HELLO).wait(10)
    times = answer.timings
    assert times.queued <= times.first_token < times.finished
    assert 0.4 < answer.seconds == times.finished - times.queued < 1.5
    assert answer.tokens == 3
    assert 4 < answer.tokens_per_second < 8  # three words, the last 0.3 s after the first


def test_reasoning_is_kept_apart(server):
    answer = ask(endpoint(server, "reasoning"), HELLO)
    assert list(answer.parts()) == [
        ("reasoning", "Let me "),
        ("reasoning", "think."),
        ("text", "Four"),
        ("text", "."),
    ]
    assert list(answer) == ["Four", "."]
    assert answer.text == "Four."
    assert answer.reasoning == "Let me think."
    assert answer.since(7, "reasoning") == "think."


def test_tool_calls_are_put_together(server):
    answer = ask(endpoint(server, "tools"), HELLO).wait(10)
    function = {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert answer.tool_calls == [{"type": "function", "function": function, "id": "call_1"}]
    assert answer.finish_reason == "tool_calls"


@given(st.lists(st.text(min_size=1)), st.integers(0, 60))
def test_what_is_new_since_a_character_is_what_a_slice_gives(chunks, offset):
    transcript = Transcript()
    for chunk in chunks:
        transcript.append(chunk)
        assert transcript.since(offset) == transcript.text[offset:]
    assert transcript.text == "".join(chunks)
    assert transcript.size == len(transcript.text)


def test_what_is_new_costs_what_is_new():
    transcript = Transcript()
    for _ in range(200_000):
        transcript.append("word ")

    def cost():
        start = time.perf_counter()
        for _ in range(1000):
            transcript.since(transcript.size - 7)
        return time.perf_counter() - start

    assert min(cost() for _ in range(5)) < 0.02  # joining all of it takes a second


# Readers.


def test_several_readers_each_get_all_of_it(server):
    answer = ask(endpoint(server, "slow"), HELLO)
    with ThreadPoolExecutor() as pool:
        read = list(pool.map("".join, [answer] * 4))
    assert read == ["one two three"] * 4
    assert "".join(answer) == "one two three"


def test_it_is_read_with_async_for(server):
    async def read(answer):
        return [chunk async for chunk in answer]

    async def both():
        answer = ask(endpoint(server, "slow"), HELLO)
        return await asyncio.gather(read(answer), read(answer))

    assert asyncio.run(both()) == [["one ", "two ", "three"]] * 2


def test_an_event_loop_goes_on_while_it_is_read(server):
    async def ticks():
        count = 0
        reading = asyncio.create_task(read())
        while not reading.done():
            await asyncio.sleep(0.01)
            count += 1
        return count

    async def read():
        return [chunk async for chunk in ask(endpoint(server, "slow"), HELLO)]

    assert asyncio.run(ticks()) > 10


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=2, max_size=8)
)
def test_answers_at_the_same_time_never_mix(server, texts):
    async def read(text):
        answer = ask(endpoint(server, "echo"), [{"role": "user", "content": text}])
        return "".join([chunk async for chunk in answer])

    async def everything():
        return await asyncio.gather(*map(read, texts))

    def in_thread(text):
        return "".join(ask(endpoint(server, "echo"), [{"role": "user", "content": text}]))

    with ThreadPoolExecutor(8) as pool:
        threads = pool.map(in_thread, texts)
        assert asyncio.run(everything()) == texts
        assert list(threads) == texts


def test_a_failure_reaches_every_reader(server):
    answer = ask(endpoint(server, "error-event"), HELLO)

    async def read():
        return [chunk async for chunk in answer]

    for attempt in (lambda: list(answer), lambda: asyncio.run(read()), lambda: answer.wait(5)):
        with pytest.raises(ServiceError, match="engine died"):
            attempt()
    assert answer.text == "Paris is "


def test_watchers_hear_of_each_change_and_of_the_end(server):
    seen, threads = [], set()
    over = threading.Event()

    def changed():
        seen.append(answer.text)
        threads.add(threading.current_thread().name)
        if answer.done:
            over.set()

    answer = Answer.pending("m", HELLO)
    answer.subscribe(changed)
    answer.begin(endpoint(server, "slow"))
    assert over.wait(10)
    assert seen[0] == "one "
    assert seen[-1] == "one two three"
    assert threads == {"lazynb-client"}


def test_who_comes_late_is_told_at_once(server):
    answer = ask(endpoint(server, "good"), HELLO).wait(10)
    seen = []
    answer.subscribe(lambda: seen.append(answer.status))
    assert seen == ["done"]


def test_a_watcher_that_left_or_fails_harms_nobody(server, caplog):
    answer = Answer.pending("m", HELLO)
    seen = []
    answer.subscribe(lambda: 1 / 0)
    answer.subscribe(lambda: seen.append(1))()
    answer.begin(endpoint(server, "good"))
    assert answer.wait(10).text == TEXT
    assert not seen
    assert "ZeroDivisionError" in caplog.text


# The end, early.


def test_waiting_can_end_before_the_answer_does(server):
    answer = ask(endpoint(server, "slow"), HELLO)
    with pytest.raises(TimeoutError, match="demo is still answering"):
        answer.wait(0.05)
    assert answer.wait(10).text == "one two three"


def test_cancelling_closes_the_connection_and_keeps_the_text(fresh):
    answer = ask(endpoint(fresh, "endless"), HELLO)
    while answer.size < 50:
        time.sleep(0.005)
    threading.Thread(target=answer.cancel).start()
    answer.wait(2)
    assert answer.status == "cancelled"
    assert answer.error is None
    text = answer.text
    assert text.startswith("word word ")
    fresh.wait_left("endless")
    assert answer.text == text
    assert answer.timings.finished


def test_cancelling_before_the_first_byte_closes_the_connection(fresh):
    answer = ask(endpoint(fresh, "silent"), HELLO)
    while not fresh.requests:
        time.sleep(0.005)
    answer.cancel()
    answer.cancel()
    assert answer.done
    assert fresh.wait_left("silent") < 0.5
    assert list(answer) == []


def test_leaving_a_loop_early_cancels(fresh):
    answer = ask(endpoint(fresh, "endless"), HELLO)
    for _ in answer:
        break
    assert answer.status == "cancelled"
    assert fresh.wait_left("endless") < 0.5


def test_an_error_in_the_loop_cancels(fresh):
    answer = ask(endpoint(fresh, "endless"), HELLO)

    def fail(chunk):
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        all(fail(chunk) for chunk in answer)
    assert answer.status == "cancelled"
    fresh.wait_left("endless")


def test_leaving_an_async_loop_early_cancels(fresh):
    answer = ask(endpoint(fresh, "endless"), HELLO)

    async def first():
        async for chunk in answer:
            assert chunk == "word "
            break

    asyncio.run(first())
    assert answer.status == "cancelled"
    fresh.wait_left("endless")


def test_cancelling_the_task_that_reads_cancels(fresh):
    answer = ask(endpoint(fresh, "silent"), HELLO)

    async def read():
        return [chunk async for chunk in answer]

    async def impatient():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(), 0.2)

    asyncio.run(impatient())
    assert answer.status == "cancelled"
    fresh.wait_left("silent")


def test_one_of_two_readers_may_leave(server):
    answer = ask(endpoint(server, "slow"), HELLO)
    staying = answer.parts()
    next(staying)
    for _ in answer:
        break
    assert [chunk for _, chunk in staying] == ["two ", "three"]
    assert answer.status == "done"


def test_a_reader_that_is_only_garbage_cancels_without_a_deadlock(fresh):
    answer = ask(endpoint(fresh, "endless"), HELLO)
    cycle = [iter(answer)]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert answer.status == "cancelled"


def test_an_answer_can_wait_for_its_service(server):
    answer = Answer.pending("m", HELLO, temperature=0.5)
    assert answer.status == "waiting"
    threading.Timer(0.2, answer.begin, [endpoint(server, "good")]).start()
    assert "".join(answer) == TEXT
    assert answer.service == "demo"
    assert answer.seconds < 0.2  # counted from the request
    answer.begin(endpoint(server, "cut"))  # once only
    assert answer.wait(1).text == TEXT


def test_an_answer_that_waits_can_be_cancelled(server):
    answer = Answer.pending("m", HELLO)
    answer.cancel()
    before = len(server.requests)
    answer.begin(endpoint(server, "good"))
    time.sleep(0.1)
    assert answer.wait(1).status == "cancelled"
    assert len(server.requests) == before


def test_an_answer_whose_service_fails_has_its_error():
    answer = Answer.pending("m", HELLO)
    threading.Timer(0.1, answer.fail, [ServiceError("no weights")]).start()
    with pytest.raises(ServiceError, match="no weights"):
        list(answer)
    assert answer.status == "failed"


# What threads could do to each other.


def test_who_looks_away_while_something_comes_is_not_left_asleep():
    answer = Answer.pending("m", HELLO)
    answer._take([Delta("new")])
    assert not answer._wake_later(answer._parts, 0, lambda: None)
    assert answer._wake_later(answer._parts, 1, lambda: None)


def test_nothing_is_added_after_the_end():
    answer = Answer.pending("m", HELLO)
    answer.cancel()
    assert not answer._take([Delta("late")])
    assert answer.text == ""


@pytest.mark.timeout(10)
def test_the_garbage_collector_may_end_a_reader_while_the_answer_is_written():
    answer = Answer.pending("m", HELLO)
    answer._take([Delta("one")])
    reader = iter(answer)
    next(reader)
    with answer._lock:  # as in the middle of `_take`
        reader.close()
    assert answer.status == "cancelled"
