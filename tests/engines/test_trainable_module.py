"""`TrainableModule` on a real engine: its life, its calls, and what it streams."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazynb import StreamCallHelper, TrainableModule, deploy
from lazynb.errors import JobError, LazynbError
from lazynb.flow import _0, bind, pipeline
from lazynb.formatter import JsonFormatter
from lazynb.jobs import manager, ports

pytest.importorskip("xllamacpp")

NAME = "smollm2-135m-instruct"
PARROT = Path(__file__).parents[1] / "programs" / "parrot.py"
STORY = "Write a very long story about a river and a city."
LONG = {"max_tokens": 4000, "ignore_eos": True}
SURE = {"temperature": 0, "max_tokens": 12}
CITY = {
    "temperature": 0,
    "max_tokens": 60,
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "city",
            "schema": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
                "required": ["city"],
            },
        },
    },
}


@pytest.fixture(scope="module")
def model(place, demo_model):
    """The module that most tests share, started."""
    module = TrainableModule(NAME).start()
    yield module
    module.stop()


@pytest.fixture
def api(model, api_of):
    return api_of(model.job)


@pytest.fixture
def own(place, demo_model):
    """A module with a service of its own, which is not started yet."""
    module = TrainableModule(NAME).deploy_method(deploy.llamacpp, n_ctx=1024)
    yield module
    for job in manager().jobs():
        if job.spec.options == module._deployment.options and job.live:
            job.stop()


def kill(job):
    """Kill a service and wait until it is dead, which is before its supervisor says so."""
    port = job.state.port
    os.kill(job.state.process.pid, signal.SIGKILL)
    while ports.taken(port):
        pass


# Its life.


def test_starting_twice_is_free(model):
    job, begun = model.job, time.monotonic()
    assert model.start() is model
    assert time.monotonic() - begun < 0.2
    assert model.job is job


def test_a_service_ends_with_the_last_module_that_started_it(own):
    other = TrainableModule(NAME).deploy_method(deploy.llamacpp, n_ctx=1024)
    assert own.status() == other.status() == "not started"
    own.start()
    other.start()
    assert own.job.id == other.job.id
    job = own.job
    assert own.stop().status() == "not started"
    assert other.status() == "ready"
    assert other("hello", **SURE)
    other.stop()
    assert not job.live
    other.stop()  # a second time is no error


def test_a_module_can_be_started_again_after_its_stop(own):
    first = own.start().job
    own.stop()
    with pytest.raises(LazynbError, match=r"not started"):
        own.log_path()
    assert own.start().job.id != first.id
    assert own("hello", **SURE)


def test_a_service_that_is_not_shared_is_its_own(own):
    alone = TrainableModule(NAME).deploy_method(deploy.llamacpp, n_ctx=1024)
    own.start()
    alone.start(shared=False)
    assert alone.job.id != own.job.id
    assert alone.job.name != own.job.name
    assert alone.url != own.url
    job = alone.job
    alone.stop()
    assert not job.live
    assert own.status() == "ready"


def test_a_restart_serves_what_is_configured_now(own):
    before = own.start().job
    own.deploy_method(deploy.llamacpp, n_ctx=768)
    assert own.restart() is own
    assert not before.live
    assert own.job.id != before.id
    assert own.job.spec.options == {"n_ctx": 768}
    assert own("hello", **SURE)


def test_a_restart_takes_the_other_modules_of_the_service_along(own):
    other = TrainableModule(NAME).deploy_method(deploy.llamacpp, n_ctx=1024)
    child = own.share("Be brief.")
    own.start()
    other.start()
    own.restart()
    assert other.status() == "stopped"  # it did not ask for this, and learns of it by its next call
    assert other("hello", **SURE)
    assert child("hello", **SURE)
    assert other.job.id == own.job.id == child.job.id
    own.stop()
    assert other.status() == "ready"


def test_first_calls_at_the_same_time_start_one_service(own):
    others = [
        TrainableModule(NAME).deploy_method(deploy.llamacpp, n_ctx=1024).share() for _ in range(3)
    ]
    modules = [own, own.share(), *others]
    with ThreadPoolExecutor(len(modules)) as pool:
        assert all(pool.map(lambda module: module("hello", **SURE), modules))
    assert len({module.job.id for module in modules}) == 1


def test_its_state_and_its_log(own):
    assert own.start(wait=False).status() in {"queued", "preparing", "loading", "ready"}
    assert own.wait().status() == "ready"
    assert "listening" in Path(own.log_path()).read_text()
    assert own.job.key not in Path(own.log_path()).read_text()
    assert own.url == f"http://127.0.0.1:{own.job.state.port}/v1"


def test_the_call_after_a_crash_starts_the_service_again(own):
    crashed = own.start().job
    kill(crashed)
    assert own("hello", **SURE)
    assert own.job.id != crashed.id
    assert own.status() == "ready"


def test_a_crash_during_a_call_is_an_error_and_the_next_call_works(own):
    own.start()
    answer = own.answer(STORY, **LONG)
    next(iter(reader := answer.parts()))
    kill(own.job)
    with pytest.raises(LazynbError):
        list(reader)
    assert answer.text  # what came before is kept
    assert own("hello", **SURE)


def test_without_autostart_a_call_names_start(own, monkeypatch):
    monkeypatch.setenv("LAZYLLM_AUTOSTART", "False")
    for call in (own, own.answer, lambda _: own.map(["hello"], progress=False)):
        with pytest.raises(LazynbError) as caught:
            call("hello")
        assert "start()" in caught.value.hint
    assert own.job is None
    own.start()
    assert own("hello", **SURE)


def test_the_first_call_starts_the_service(own):
    assert own("hello", **SURE)
    assert own.status() == "ready"


def test_a_fixed_port_that_is_taken_names_its_holder(own):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        own.deploy_method(deploy.llamacpp, n_ctx=1024, port=port)
        with pytest.raises(JobError) as caught:
            own.start()
    assert str(port) in str(caught.value)
    assert str(os.getpid()) in str(caught.value)


# Streams.


def test_a_stream_is_the_answer_in_pieces(model):
    stream = StreamCallHelper(model.share(stream=True))(STORY, temperature=0, max_tokens=30)
    chunks = list(stream)
    assert len(chunks) > 10
    assert {chunk.kind for chunk in chunks} == {"text"}
    assert {chunk.source for chunk in chunks} == {NAME}
    assert "".join(chunks) == stream.result == model(STORY, temperature=0, max_tokens=30)


def test_a_pipeline_streams_each_of_its_modules_with_its_prefix(model):
    first = model.share(stream={"prefix": "A: ", "suffix": "\n", "prefix_color": "blue"})
    second = model.share("Answer in one word.", stream={"prefix": "B: ", "color": "red"})
    flow = pipeline(first | bind(_0, **SURE), second | bind(_0, **SURE))
    stream = StreamCallHelper(flow)("What is the capital of France?")
    chunks = list(stream)
    kinds = [chunk.kind for chunk in chunks]
    begin = kinds.index("prefix", 1)
    assert (chunks[0], chunks[0].color, chunks[begin]) == ("A: ", "blue", "B: ")
    assert (kinds[begin - 1], chunks[begin - 1]) == ("suffix", "\n")
    assert set(kinds[1 : begin - 1]) == set(kinds[begin + 1 :]) == {"text"}
    assert {chunk.color for chunk in chunks[begin + 1 :]} == {"red"}
    said = "".join(chunks[1 : begin - 1])
    assert said == first("What is the capital of France?", **SURE)
    assert "".join(chunks[begin + 1 :]) == stream.result == second(said, **SURE)


def test_a_formatter_makes_the_result_of_a_stream(model):
    city = model.share(format=JsonFormatter("[city]"), stream=True)
    stream = StreamCallHelper(city)("A city of France, as JSON.", **CITY)
    chunks = list(stream)
    assert len(chunks) > 1
    assert stream.result in {"Paris", "Rome"}
    assert JsonFormatter("[city]")("".join(chunks)) == stream.result


def test_leaving_the_loop_early_cancels_on_the_server(model, api):
    api.wait_until_running(0, 5)
    for _ in StreamCallHelper(model.share(stream=True))(STORY, **LONG):
        api.wait_until_running(1, 5)
        break
    assert api.wait_until_running(0, 3) < 3


def test_an_exception_in_an_async_loop_cancels_on_the_server(model, api):
    async def main():
        stream = StreamCallHelper(model.share(stream=True))(STORY, **LONG)
        async for _ in stream:
            await asyncio.to_thread(api.wait_until_running, 1, 5)
            raise ZeroDivisionError

    api.wait_until_running(0, 5)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert api.wait_until_running(0, 3) < 3


# Calls.


def test_acall_leaves_the_event_loop_free(model):
    ticks = []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def main():
        ticking = asyncio.create_task(tick())
        texts = await asyncio.gather(*(model.acall("hello", **SURE) for _ in range(3)))
        ticking.cancel()
        return texts

    assert all(asyncio.run(main()))
    assert max(b - a for a, b in pairwise(ticks)) < 0.3


def test_a_cancelled_acall_cancels_on_the_server(model, api):
    async def main():
        task = asyncio.create_task(model.acall(STORY, **LONG))
        await asyncio.to_thread(api.wait_until_running, 1, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    api.wait_until_running(0, 5)
    asyncio.run(main())
    assert api.wait_until_running(0, 3) < 3


def test_map_keeps_the_order_and_each_items_own_error(model):
    cities = {"type": "string", "enum": ["Paris", "Rome", "Berlin"]}
    schema = {"type": "object", "properties": {"city": cities}, "required": ["city"]}
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    said = [f"Say this as JSON: {{'city': '{name}'}}" for name in ("Paris", "Rome", "Berlin")]
    inputs = [said[0], None, said[1], "word " * 9000, said[2]]
    results = model.share(format=JsonFormatter("[city]")).map(
        inputs, progress=False, concurrency=3, temperature=0, max_tokens=40, response_format=form
    )
    assert results == ["Paris", None, "Rome", None, "Berlin"]
    assert set(results.errors) == {1, 3}
    assert all(isinstance(error, LazynbError) for error in results.errors.values())
    assert results.undone == []
    with pytest.raises(ExceptionGroup, match=r"2 of 5"):
        results.raise_errors()


def test_an_error_of_the_formatter_is_the_items_own(model):
    numbers = iter(range(3))

    def picky(text):
        if next(numbers) == 1:
            raise ValueError(text)
        return "ok"

    results = model.share(format=picky).map(["hello"] * 3, progress=False, max_tokens=1)
    assert results == ["ok", None, "ok"]
    assert [type(results.errors[index]) for index in results.errors] == [ValueError]
    assert list(results.errors) == [1]


# Conversations.


ASK = "What is my name?"
NAMES = ["Anna", "Peter", "Olga", "Victor", "Clara", "Martin"]


def met(name):
    """A conversation in which the user gave a name."""
    known = f"Your name is {name}."
    return [[f"My name is {name}.", known], [ASK, known]]


def named(text):
    return [name for name in NAMES if name in text]


def test_the_history_of_a_call_is_what_the_model_knows(model):
    assert named(model(ASK, llm_chat_history=met("Olga"), **SURE)) == ["Olga"]
    assert named(model(ASK, **SURE)) == []  # nothing is kept from one call to the next
    peters = model.share(history=met("Peter"))
    assert named(peters(ASK, **SURE)) == ["Peter"]
    assert named(peters(ASK, llm_chat_history=met("Clara"), **SURE)) == ["Clara"]  # comes after
    assert named(asyncio.run(model.acall(ASK, llm_chat_history=met("Olga"), **SURE))) == ["Olga"]


def test_conversations_in_several_threads_never_mix(model):
    def talk(name):
        stream = StreamCallHelper(model.share(stream=True))
        streamed = "".join(stream(ASK, llm_chat_history=met(name), **SURE))
        return [named(streamed), named(model(ASK, llm_chat_history=met(name), **SURE))]

    with ThreadPoolExecutor(len(NAMES)) as pool:
        assert list(pool.map(talk, NAMES)) == [[[name]] * 2 for name in NAMES]


def test_conversations_on_an_event_loop_never_mix(model):
    async def talk(name):
        stream = StreamCallHelper(model.share(stream=True))
        streamed = [c async for c in stream(ASK, llm_chat_history=met(name), **SURE)]
        plain = await model.acall(ASK, llm_chat_history=met(name), **SURE)
        return [named("".join(streamed)), named(plain)]

    async def main():
        return await asyncio.gather(*map(talk, NAMES))

    assert asyncio.run(main()) == [[[name]] * 2 for name in NAMES]


# Many streams at once, to the letter: from a server that says what it is told.


@pytest.fixture(scope="module")
def parrot(place):
    """A module on such a server."""
    server = subprocess.Popen([sys.executable, str(PARROT)], stdout=subprocess.PIPE, text=True)
    port = int(server.stdout.readline())
    yield TrainableModule(stream=True).deploy_method(deploy.vllm, url=f"http://127.0.0.1:{port}/v1")
    server.kill()
    server.wait()


SPEECHES = [[f"{speaker}-{word} " for word in range(40)] for speaker in range(24)]


def script(pieces):
    return json.dumps({"say": pieces, "rate": 200})


def test_streams_in_threads_never_mix(parrot):
    def read(pieces):
        stream = StreamCallHelper(parrot)(script(pieces))
        return list(stream), stream.result

    with ThreadPoolExecutor(len(SPEECHES)) as pool:
        assert list(pool.map(read, SPEECHES)) == [(said, "".join(said)) for said in SPEECHES]


def test_streams_on_an_event_loop_never_mix(parrot):
    async def read(pieces):
        stream = StreamCallHelper(parrot)(script(pieces))
        return [chunk async for chunk in stream], stream.result

    async def main():
        return await asyncio.gather(*map(read, SPEECHES))

    assert asyncio.run(main()) == [(said, "".join(said)) for said in SPEECHES]


def test_leaving_a_stream_that_stalls_cancels_at_once(parrot):
    """Its next chunk is a minute away, so that nothing but the cancelling itself can end it."""
    at_work = parrot.url.replace("/v1", "/running")

    def wait_until_running(count):
        deadline = time.monotonic() + 2
        while json.load(urllib.request.urlopen(at_work, timeout=5)) != count:
            assert time.monotonic() < deadline, f"not {count} at work"
            time.sleep(0.02)

    async def leave():
        async for _ in StreamCallHelper(parrot)(stalls):
            break
        await asyncio.to_thread(wait_until_running, 0)

    stalls = json.dumps({"say": ["a", "b"], "rate": 1 / 60})
    wait_until_running(0)
    for _ in StreamCallHelper(parrot)(stalls):
        wait_until_running(1)
        break
    wait_until_running(0)
    asyncio.run(leave())


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(st.text(min_size=1), max_size=8), min_size=2, max_size=6))
def test_any_texts_at_the_same_time_arrive_as_they_were(parrot, speeches):
    def read(pieces):
        stream = StreamCallHelper(parrot.share(format=str.upper))(script(pieces))
        return list(stream), stream.result

    async def main():
        return await asyncio.gather(*(parrot.acall(script(pieces)) for pieces in speeches))

    whole = ["".join(pieces) for pieces in speeches]
    with ThreadPoolExecutor(len(speeches)) as pool:
        streams = pool.map(read, speeches)
        assert asyncio.run(main()) == whole
        for pieces, text, (chunks, result) in zip(speeches, whole, streams, strict=True):
            assert chunks == pieces
            assert result == text.upper()
