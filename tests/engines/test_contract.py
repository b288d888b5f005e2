"""What every engine must do, written once. A new engine is one more line in `ENGINES`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import openai
import psutil
import pytest

STORY = [{"role": "user", "content": "Write a very long story about a river and a city."}]
QUERY, DOCUMENTS = "What is the capital of France?", ["Cows eat hay.", "Paris is the capital."]


@dataclass(frozen=True)
class Kind:
    """What is asked of a type of model."""

    path: str
    small: dict[str, Any]
    """A request that is answered at once."""
    large: dict[str, Any]
    """One that takes long."""
    wrong: list[Any]
    """Bodies that are refused."""


KINDS = {
    "chat": Kind(
        "/v1/chat/completions",
        {"model": "demo", "messages": STORY, "max_tokens": 1},
        {"messages": STORY, "max_tokens": 3000, "ignore_eos": True},
        [
            {},
            {"messages": "hello"},
            {"messages": STORY, "temperature": "hot"},
            {"messages": [{"role": "user", "content": "word " * 40_000}]},
        ],
    ),
    "embed": Kind(
        "/v1/embeddings",
        {"model": "demo", "input": "hi"},
        {"input": ["some words to read " * 40] * 2000},
        [{}, {"input": 3}, {"input": ["a", 3]}, {"input": []}],
    ),
    "rerank": Kind(
        "/v1/rerank",
        {"model": "demo", "query": QUERY, "documents": DOCUMENTS},
        {"query": QUERY, "documents": ["some words to read " * 40] * 2000},
        [{}, {"query": QUERY}, {"query": QUERY, "documents": 3}],
    ),
}


@dataclass(frozen=True)
class Subject:
    """An engine under test, with what it serves."""

    engine: str
    kind: str = "chat"
    model: str = "demo_model"
    """The fixture of its weights."""
    options: dict[str, Any] = field(default_factory=dict)
    parts: int = 1
    """The processes that it has."""
    stops: float = 2
    """Seconds until all of them are gone."""

    @property
    def asks(self) -> Kind:
        """The requests of its kind."""
        return KINDS[self.kind]


ENGINES = {
    "llamacpp": Subject("llamacpp"),
    "transformers": Subject("transformers"),
    "vllm": Subject("vllm", parts=4, stops=7),  # it is killed after `stop_grace` at the latest
    "embedding": Subject("embedding", "embed", "embedding_model"),
    "rerank": Subject("rerank", "rerank", "reranker_model"),
}


@pytest.fixture(
    scope="module",
    params=[
        "llamacpp",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ENGINES if name != "llamacpp"),
    ],
)
def subject(request, installed):
    if request.param == "llamacpp":
        pytest.importorskip("xllamacpp")
    else:
        installed(request.param)
    return ENGINES[request.param]


@pytest.fixture(scope="module")
def start(request, submit, subject):
    """Start a service of the engine, and wait until it is ready."""
    model = str(request.getfixturevalue(subject.model))

    def begin():
        job = submit(model, subject.engine, **subject.options)
        job.wait(timeout=240)
        return job

    return begin


@pytest.fixture(scope="module")
def service(start):
    return start()


@pytest.fixture
def client(service):
    with openai.OpenAI(
        base_url=service.url, api_key=service.key, max_retries=2, timeout=120
    ) as client:
        yield client


@pytest.fixture
def chats(subject):
    if subject.kind != "chat":
        pytest.skip("chats alone")


@pytest.fixture
def embeds(subject):
    if subject.kind != "embed":
        pytest.skip("embeddings alone")


def processes(job):
    """All programs of a service but its supervisor."""
    root = psutil.Process(job.state.process.pid)
    return [root, *root.children(recursive=True)]


def test_it_was_ready_when_it_said_so(api, subject):
    status, answer = api.call(subject.asks.path, subject.asks.small)
    assert status == 200
    assert answer.get("usage", {}).get("completion_tokens", 1) == 1


def test_it_serves_the_model_under_the_services_name(client):
    assert [model.id for model in client.models.list()] == ["demo"]


# Chat, by the client of openai.


@pytest.mark.usefixtures("chats")
def test_it_answers_and_counts(client):
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    answer = client.chat.completions.create(
        model="demo", messages=question, temperature=0, max_tokens=20
    )
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "demo"
    assert answer.usage.prompt_tokens > 10
    assert 0 < answer.usage.completion_tokens < 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.usefixtures("chats")
def test_it_streams_and_counts(client):
    stream = client.chat.completions.create(
        model="demo",
        messages=STORY,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 10
    assert chunks[-1].usage.completion_tokens == 40
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"


@pytest.mark.usefixtures("chats")
@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_ends_with_done_and_has_its_usage_where_it_was_asked_for(api, usage):
    body = {"messages": STORY, "max_tokens": 3, "stream": True}
    if usage:
        body["stream_options"] = {"include_usage": True}
    _, text = api.call("/v1/chat/completions", body)
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    counted = [event for event in map(json.loads, events[:-1]) if event.get("usage")]
    assert len(counted) == usage


@pytest.mark.usefixtures("chats")
@pytest.mark.parametrize("temperature", [0, 1.2])
def test_the_same_seed_gives_the_same_text(client, temperature):
    def text(seed):
        answer = client.chat.completions.create(
            model="demo", messages=STORY, max_tokens=20, temperature=temperature, seed=seed
        )
        return answer.choices[0].message.content

    assert text(1) == text(1)
    if temperature:
        assert len({text(seed) for seed in range(2, 6)}) > 1


@pytest.mark.usefixtures("chats")
def test_it_stops_at_a_word(client):
    counting = [{"role": "user", "content": "Count from 1 to 9: 1, 2, 3, and so on."}]
    ask = {"model": "demo", "messages": counting, "temperature": 0, "max_tokens": 60}
    whole = client.chat.completions.create(**ask).choices[0].message.content
    assert "5" in whole
    choice = client.chat.completions.create(**ask, stop=["5", "no such word"]).choices[0]
    assert choice.message.content == whole.partition("5")[0]
    assert choice.finish_reason == "stop"


@pytest.mark.usefixtures("chats")
@pytest.mark.parametrize(
    "wrong", [{"temperature": -3}, {"n": 0}, {"max_tokens": "many"}, {"response_format": {"type": "verse"}}], ids=str
)  # fmt: skip
def test_a_wrong_parameter_is_a_bad_request_for_the_client_of_openai(client, subject, wrong):
    if subject.engine == "llamacpp" and wrong.keys() & {"temperature", "n"}:
        pytest.skip("llama.cpp takes the nearest value that it can")
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)):
        client.chat.completions.create(model="demo", messages=STORY, **wrong)


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


@pytest.mark.usefixtures("chats")
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_fits_the_schema_that_was_asked_for(client, stream):
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA}}
    asked = [{"role": "user", "content": "Describe a pet as JSON."}]
    for seed in range(3):
        answer = client.chat.completions.create(
            model="demo", messages=asked, response_format=form, temperature=1.5, seed=seed,
            max_tokens=200, stream=stream,
        )  # fmt: skip
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in answer)
            if stream
            else answer.choices[0].message.content
        )
        pet = json.loads(text)
        assert pet.keys() == {"name", "age", "kind"}
        assert pet["kind"] in ("cat", "dog")
        assert 0 <= pet["age"] <= 150


@pytest.mark.usefixtures("chats")
def test_a_json_object_is_one(client):
    asked = [{"role": "user", "content": "Name three colours as a JSON object."}]
    choice = client.chat.completions.create(
        model="demo", messages=asked, response_format={"type": "json_object"}, temperature=0, max_tokens=400
    ).choices[0]  # fmt: skip
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    else:  # it went on until there was no room
        assert choice.message.content.lstrip().startswith("{")


@pytest.mark.usefixtures("chats")
def test_several_choices_of_one_request_differ(client, subject):
    ask = {"model": "demo", "messages": STORY, "n": 3, "temperature": 1.2, "max_tokens": 15}
    answer = client.chat.completions.create(**ask)
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    if subject.engine != "llamacpp":  # which counts the first
        assert answer.usage.completion_tokens > 15
    texts = dict.fromkeys(range(3), "")
    for chunk in client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert len(set(texts.values())) == 3


@pytest.mark.usefixtures("chats")
def test_the_likeliest_token_is_that_of_no_temperature(client):
    choice = client.chat.completions.create(
        model="demo", messages=STORY, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3
    ).choices[0]
    tokens = choice.logprobs.content
    assert len(tokens) == 5
    assert "".join(one.token for one in tokens) == choice.message.content
    for one in tokens:
        assert len(one.top_logprobs) == 3
        assert one.top_logprobs[0].token == one.token
        assert one.logprob == pytest.approx(one.top_logprobs[0].logprob, abs=1e-4)
        assert one.logprob <= 0


@pytest.mark.usefixtures("chats")
def test_a_penalty_makes_an_answer_repeat_itself_less(client):
    def words(**penalty):
        answer = client.chat.completions.create(
            model="demo", messages=STORY, temperature=0, max_tokens=150, **penalty
        )
        text = answer.choices[0].message.content.split()
        return len(set(text)) / len(text)

    assert words(frequency_penalty=1.5) > words() + 0.05


# Embeddings, by the client of openai.


@pytest.mark.usefixtures("embeds")
def test_it_embeds_and_counts(client):
    answer = client.embeddings.create(model="demo", input=["a cat", "a dog"])
    assert [item.index for item in answer.data] == [0, 1]
    assert len({len(item.embedding) for item in answer.data}) == 1
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


@pytest.mark.usefixtures("embeds")
def test_a_wrong_input_is_a_bad_request_for_the_client_of_openai(client):
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="demo", input=[])


# What any client is told.


def test_a_wrong_key_is_an_authentication_error_for_the_client_of_openai(service, subject):
    with openai.OpenAI(base_url=service.url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        with pytest.raises(openai.AuthenticationError):
            stranger.post(
                subject.asks.path.removeprefix("/v1"), body=subject.asks.small, cast_to=object
            )


def test_a_model_that_it_does_not_serve_is_not_found(client, subject):
    if subject.engine == "llamacpp":
        pytest.skip("llama.cpp serves one model, and answers to any name")
    body = {**subject.asks.small, "model": "another"}
    with pytest.raises(openai.NotFoundError, match="another"):
        client.post(subject.asks.path.removeprefix("/v1"), body=body, cast_to=object)


def test_wrong_input_is_refused_with_a_message_and_the_service_stays(api, subject):
    asks = subject.asks
    for body in ["this is no JSON", *asks.wrong]:
        status, answer = api.call(asks.path, body)
        assert 400 <= status < 500, (body, answer)
        assert answer["error"]["message"]
    assert api.call(asks.path, asks.small)[0] == 200


# Cancelling, and many at once.


@pytest.mark.usefixtures("chats")
def test_a_client_that_leaves_its_stream_frees_the_engine_within_two_seconds(api, subject):
    api.wait_until_running(0, 5)
    connection = api.connect(subject.asks.path, {**subject.asks.large, "stream": True})
    api.wait_until_running(1, 5)
    connection.close()
    assert api.wait_until_running(0, 2) < 2


@pytest.mark.usefixtures("chats")
@pytest.mark.parametrize(
    ("content", "seconds"),
    # A prompt is read on to the end of its batch.
    [("Write a very long story.", 2), ("word " * 3000, 4)],
    ids=["answer", "prompt"],
)
def test_a_client_that_leaves_before_the_first_byte_does_too(api, subject, content, seconds):
    api.wait_until_running(0, 5)
    messages = [{"role": "user", "content": content}]
    body = {"messages": messages, "max_tokens": 1000, "stream": False, "ignore_eos": True}
    connection = api.connect("/v1/chat/completions", body)
    if subject.engine == "vllm" and seconds > 2:  # it counts after a step, and the prompt is one
        time.sleep(1)
        connection.close()
        api.wait_until_running(0, 30)
        return
    api.wait_until_running(1, 5)
    connection.close()
    time.sleep(
        seconds
    )  # llama.cpp looks when it has been left alone for a second: asking would put that off
    assert api.running() == 0


@pytest.mark.usefixtures("chats")
def test_requests_that_wait_their_turn_are_cancelled_too(api, subject):
    api.wait_until_running(0, 5)
    body = {**subject.asks.large, "stream": True}
    connections = [api.connect(subject.asks.path, body) for _ in range(24)]
    time.sleep(1)
    for connection in connections:
        connection.close()
    api.wait_until_running(0, 10)
    time.sleep(1)  # nothing comes up from the queue
    assert api.running() == 0


def test_a_client_that_leaves_lets_others_have_their_turn(api, subject):
    if subject.kind == "chat":
        pytest.skip("the engine counts its requests: see the tests above")
    connection = api.connect(subject.asks.path, subject.asks.large)
    time.sleep(1)
    connection.close()
    begun = time.monotonic()
    assert api.call(subject.asks.path, subject.asks.small)[0] == 200
    assert time.monotonic() - begun < 10  # the piece that is computed; all of them take longer


@pytest.mark.slow
@pytest.mark.usefixtures("chats")
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


def test_sixteen_requests_at_once_are_all_answered(api, subject):
    with ThreadPoolExecutor(16) as threads:
        answers = threads.map(lambda _: api.call(subject.asks.path, subject.asks.small), range(64))
        assert {status for status, _ in answers} == {200}


@pytest.mark.slow
@pytest.mark.usefixtures("chats")
def test_it_answers_others_and_says_how_it_is_while_sixteen_streams_run(api, subject):
    body = {**subject.asks.large, "stream": True}
    connections = [api.connect(subject.asks.path, body) for _ in range(16)]
    try:
        begun = time.monotonic()
        assert api.call("/health")[0] == 200
        while not api.running():
            time.sleep(0.05)
        # vLLM counts the requests of a step when it is over, and on a CPU the first one takes seconds.
        assert time.monotonic() - begun < (20 if subject.engine == "vllm" else 2)
    finally:
        for connection in connections:
            connection.close()
    api.wait_until_running(0, 5)


# Keys and addresses.


def routes(api):
    """Paths that servers are known to have, and those that this one lists."""
    known = (
        "/ /docs /redoc /openapi.json /metrics /ping /version /load /slots /props /models /v1/models /server_info "
        "/lora-adapters /tokenize /v1/completions /v1/chat/completions /v1/embeddings /v1/rerank /rerank /nothing"
    )
    status, listed = api.call("/openapi.json")
    return {*known.split(), *(listed["paths"] if status == 200 else ())} - {"/health"}


@pytest.mark.parametrize("key", ["", "wrong"])
def test_without_the_key_nothing_is_answered(api, subject, key):
    assert api.call("/health", key=key)[0] == 200
    for path in routes(api):
        for body in (None, {}, subject.asks.small):
            status, answer = api.call(path, body, key=key)
            # llama.cpp says of what it does not have that it does not have it
            assert status == 401 or (subject.engine == "llamacpp" and status == 404), (path, answer)
            assert "error" in answer


def test_it_listens_on_loopback_only(service):
    addresses = {
        connection.laddr.ip
        for process in processes(service)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_the_key_is_in_no_argument_and_in_no_log(service):
    for process in processes(service):
        assert service.key not in " ".join(process.cmdline())
    assert service.key not in service.log_path.read_text()


def test_it_rests_when_nothing_is_asked(service, api, subject):
    if subject.kind == "chat":
        api.wait_until_running(0, 5)
    everything = processes(service)

    def spent():
        before = sum(sum(process.cpu_times()[:2]) for process in everything)
        time.sleep(1)
        return sum(sum(process.cpu_times()[:2]) for process in everything) - before

    assert any(spent() < 0.1 for _ in range(5))  # what was cancelled ends its step


# The end.


def test_it_stops_within_seconds_while_requests_run(start, api_of, subject):
    job = start()
    connection = api_of(job).connect(subject.asks.path, {**subject.asks.large, "stream": True})
    time.sleep(0.5)
    everything = processes(job)
    begun = time.monotonic()
    job.stop()
    assert time.monotonic() - begun < subject.stops
    connection.close()
    assert job.state.phase == "stopped"
    assert not any(process.is_running() for process in everything)


@pytest.mark.parametrize("part", range(4))
def test_when_a_part_of_it_is_killed_the_job_says_so_or_goes_on_and_nothing_is_left(
    start, api_of, subject, part
):
    if part >= subject.parts:
        pytest.skip("it has no such part")
    job = start()
    everything = processes(job)
    assert len(everything) == subject.parts
    needed = "resource_tracker" not in " ".join(everything[part].cmdline())
    everything[part].kill()
    deadline = time.monotonic() + (30 if needed else 2)
    while job.live and time.monotonic() < deadline:
        time.sleep(0.05)
    if needed:
        assert job.state.phase == "failed"
        assert job.state.cause
        assert part or job.state.returncode == -signal.SIGKILL
    else:
        assert api_of(job).call(subject.asks.path, subject.asks.small)[0] == 200
        job.stop()
    assert psutil.wait_procs(everything, timeout=5)[1] == []


def test_it_dies_with_its_supervisor(start):
    job = start()
    everything = processes(job)
    os.kill(job.state.supervisor.pid, signal.SIGKILL)
    assert psutil.wait_procs(everything, timeout=10)[1] == []
