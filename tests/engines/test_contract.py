"""What every engine that chats must do, written once. A new engine is one more line in `ENGINES`."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import openai
import psutil
import pytest

ENGINES = {"llamacpp": {}, "transformers": {}}
"""Engine → the options that it is tested with."""

STORY = [{"role": "user", "content": "Write a very long story about a river and a city."}]


@pytest.fixture(
    scope="module",
    params=[
        "llamacpp",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ENGINES if name != "llamacpp"),
    ],
)
def engine(request, installed):
    if request.param == "llamacpp":
        pytest.importorskip("xllamacpp")
    else:
        installed(request.param)
    return request.param


@pytest.fixture(scope="module")
def service(submit, engine, demo_model):
    """A service of the engine, ready."""
    job = submit(str(demo_model), engine, **ENGINES[engine])
    job.wait(timeout=120)
    return job


@pytest.fixture
def client(service):
    with openai.OpenAI(
        base_url=service.url, api_key=service.key, max_retries=2, timeout=120
    ) as client:
        yield client


def test_it_was_ready_when_it_said_so(api):
    status, answer = api.call("/v1/chat/completions", {"messages": STORY, "max_tokens": 1})
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 1


def test_it_serves_the_model_under_the_services_name(client):
    assert [model.id for model in client.models.list()] == ["demo"]


def test_it_answers(client):
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    answer = client.chat.completions.create(
        model="demo", messages=question, temperature=0, max_tokens=20
    )
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_it_streams_and_counts(client):
    stream = client.chat.completions.create(
        model="demo",
        messages=STORY,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 10
    assert chunks[-1].usage.completion_tokens == 40
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"


def test_a_seed_and_no_temperature_give_the_same_text_twice(client):
    same = {"model": "demo", "messages": STORY, "max_tokens": 20, "temperature": 0, "seed": 1}
    texts = {client.chat.completions.create(**same).choices[0].message.content for _ in range(2)}
    assert len(texts) == 1


def test_a_client_that_leaves_its_stream_frees_the_engine_within_two_seconds(api):
    api.wait_until_running(0, 5)
    body = {"messages": STORY, "max_tokens": 4000, "stream": True, "ignore_eos": True}
    connection = api.connect("/v1/chat/completions", body)
    api.wait_until_running(1, 5)
    connection.close()
    assert api.wait_until_running(0, 2) < 2


@pytest.mark.parametrize(
    ("content", "seconds"),
    # A prompt is read on to the end of its batch.
    [("Write a very long story.", 2), ("word " * 3500, 4)],
    ids=["answer", "prompt"],
)
def test_a_client_that_leaves_before_the_first_byte_does_too(api, content, seconds):
    api.wait_until_running(0, 5)
    messages = [{"role": "user", "content": content}]
    body = {"messages": messages, "max_tokens": 4000, "stream": False, "ignore_eos": True}
    connection = api.connect("/v1/chat/completions", body)
    api.wait_until_running(1, 5)
    connection.close()
    time.sleep(
        seconds
    )  # llama.cpp looks when it has been left alone for a second: asking would put that off
    assert api.running() == 0


def test_requests_that_wait_their_turn_are_cancelled_too(api):
    api.wait_until_running(0, 5)
    body = {"messages": STORY, "max_tokens": 4000, "stream": True, "ignore_eos": True}
    connections = [api.connect("/v1/chat/completions", body) for _ in range(24)]
    time.sleep(1)
    for connection in connections:
        connection.close()
    api.wait_until_running(0, 10)
    time.sleep(1)  # nothing comes up from the queue
    assert api.running() == 0


@pytest.mark.slow
def test_sixteen_streams_at_once_all_come_to_their_end(service):
    async def one(client, number):
        story = [{"role": "user", "content": f"Write story number {number} about a river."}]
        stream = await client.chat.completions.create(
            model="demo", messages=story, max_tokens=60, stream=True, extra_body={"ignore_eos": True},
            stream_options={"include_usage": True},
        )  # fmt: skip
        return [chunk async for chunk in stream][-1].usage.completion_tokens

    async def all_of_them():
        # `max_retries` covers a kept-alive connection that the server closed before an answer.
        async with openai.AsyncOpenAI(
            base_url=service.url, api_key=service.key, max_retries=2
        ) as client:
            return [await asyncio.gather(*(one(client, i) for i in range(16))) for _ in range(2)]

    assert asyncio.run(all_of_them()) == [[60] * 16] * 2
    assert service.live


@pytest.mark.slow
def test_it_answers_others_and_says_how_it_is_while_sixteen_streams_run(api):
    body = {"messages": STORY, "max_tokens": 2000, "stream": True, "ignore_eos": True}
    connections = [api.connect("/v1/chat/completions", body) for _ in range(16)]
    try:
        begun = time.monotonic()
        assert api.call("/health")[0] == 200
        assert api.call("/slots")[0] == 200
        assert time.monotonic() - begun < 2
    finally:
        for connection in connections:
            connection.close()
    api.wait_until_running(0, 5)


@pytest.mark.parametrize(
    "body",
    [
        "this is no JSON",
        {},
        {"messages": "hello"},
        {"messages": [{"role": "user", "content": "hi"}], "temperature": "hot"},
        {"messages": [{"role": "user", "content": "word " * 40_000}]},
    ],
    ids=["no json", "no messages", "text", "wrong type", "too long"],
)
def test_wrong_input_is_refused_with_a_message_and_the_service_stays(api, body):
    status, answer = api.call("/v1/chat/completions", body)
    assert 400 <= status < 500, answer
    assert answer["error"]["message"]
    assert api.call("/v1/chat/completions", {"messages": STORY, "max_tokens": 1})[0] == 200


@pytest.mark.parametrize("key", ["", "wrong"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/slots", "/props"])
def test_without_the_key_nothing_is_answered(api, path, key):
    body = {"messages": STORY, "max_tokens": 1} if path.endswith("completions") else None
    assert api.call(path, body, key=key)[0] == 401


def test_it_listens_on_loopback_only(service):
    addresses = {
        connection.laddr.ip
        for process in [psutil.Process(service.state.process.pid)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_the_key_is_in_no_argument_and_in_no_log(service):
    process = psutil.Process(service.state.process.pid)
    assert service.key not in " ".join(process.cmdline())
    assert service.key not in service.log_path.read_text()


def test_it_rests_when_nothing_is_asked(service, api):
    api.wait_until_running(0, 5)
    process = psutil.Process(service.state.process.pid)
    time.sleep(0.3)
    before = sum(process.cpu_times()[:2])
    time.sleep(1)
    assert sum(process.cpu_times()[:2]) - before < 0.1


def test_it_stops_within_seconds_while_requests_run(submit, engine, demo_model):
    job = submit(str(demo_model), engine, **ENGINES[engine])
    job.wait(timeout=120)
    with openai.OpenAI(base_url=job.url, api_key=job.key, max_retries=0) as client:
        stream = client.chat.completions.create(
            model="demo",
            messages=STORY,
            max_tokens=2000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        next(iter(stream))
        process = psutil.Process(job.state.process.pid)
        begun = time.monotonic()
        job.stop()
        assert time.monotonic() - begun < 2
    assert job.state.phase == "stopped"
    assert not process.is_running()


def test_when_it_is_killed_the_job_says_so(submit, engine, demo_model):
    job = submit(str(demo_model), engine, **ENGINES[engine])
    job.wait(timeout=120)
    os.kill(job.state.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while job.live and time.monotonic() < deadline:
        time.sleep(0.05)
    assert job.state.phase == "failed"
    assert job.state.returncode == -signal.SIGKILL


def test_it_dies_with_its_supervisor(submit, engine, demo_model):
    job = submit(str(demo_model), engine, **ENGINES[engine])
    job.wait(timeout=120)
    process = psutil.Process(job.state.process.pid)
    os.kill(job.state.supervisor.pid, signal.SIGKILL)
    process.wait(timeout=3)
