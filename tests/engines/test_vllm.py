"""vLLM on the demo model's weights, unpacked out of their GGUF file; its own server, under a supervisor."""

from __future__ import annotations

import os
import signal
import time

import openai
import psutil
import pytest

pytestmark = pytest.mark.slow

STORY = [{"role": "user", "content": "Write a very long story about a river and a city."}]


@pytest.fixture(scope="module")
def service(installed, submit, demo_model):
    installed("vllm")
    job = submit(str(demo_model), "vllm", max_model_len=2048)
    job.wait(timeout=200)
    return job


@pytest.fixture
def client(service):
    with openai.OpenAI(
        base_url=service.url, api_key=service.key, max_retries=0, timeout=60
    ) as client:
        yield client


def running(api) -> float:
    """How many requests the engine works on, asked from itself."""
    lines = api.call("/metrics")[1].splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running")
    )


def test_it_answers_under_the_services_name(client):
    assert [model.id for model in client.models.list()] == ["demo"]
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    answer = client.chat.completions.create(
        model="demo", messages=question, temperature=0, max_tokens=20
    )
    assert "Paris" in answer.choices[0].message.content


def test_it_streams_and_counts(client):
    stream = client.chat.completions.create(
        model="demo", messages=STORY, max_tokens=40, stream=True, stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    chunks = list(stream)
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 10
    assert chunks[-1].usage.completion_tokens == 40


def test_a_client_that_leaves_frees_the_engine_within_two_seconds(api):
    body = {"messages": STORY, "max_tokens": 1500, "stream": True, "ignore_eos": True}
    connection = api.connect("/v1/chat/completions", body)
    deadline = time.monotonic() + 10
    while running(api) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    connection.close()
    deadline = time.monotonic() + 2
    while running(api):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("key", ["", "wrong"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_without_the_key_nothing_is_answered(api, path, key):
    body = {"messages": STORY, "max_tokens": 1} if path.endswith("completions") else None
    assert api.call(path, body, key=key)[0] == 401


def test_nothing_of_it_listens_elsewhere_or_shows_the_key(service):
    root = psutil.Process(service.state.process.pid)
    for process in [root, *root.children(recursive=True)]:
        listening = [
            c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN
        ]
        assert set(listening) <= {"127.0.0.1"}
        assert service.key not in " ".join(process.cmdline())
    assert service.key not in service.log_path.read_text()


def test_when_its_server_is_killed_its_engine_core_goes_too(service):
    root = psutil.Process(service.state.process.pid)
    everything = [root, *root.children(recursive=True)]
    assert len(everything) > 1
    os.kill(root.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(everything, timeout=15)
    assert alive == []
    deadline = time.monotonic() + 5
    while service.live and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (service.state.phase, service.state.returncode) == ("failed", -signal.SIGKILL)
