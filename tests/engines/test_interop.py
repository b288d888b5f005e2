"""Other people's clients on a service of lazynb, and lazynb as the client of a server that it did not start."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import openai
import pytest

import lazynb
from lazynb import TrainableModule
from lazynb.engines.llamacpp import SERVER
from lazynb.errors import LazynbError
from lazynb.jobs import manager, ports

pytest.importorskip("xllamacpp")

CAPITAL = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
QUESTION = CAPITAL[0]["content"]
SURE = {"temperature": 0, "max_tokens": 20}


@pytest.fixture(scope="module")
def module(place, demo_model):
    """The demo's model, started as a user starts it."""
    module = TrainableModule("smollm2-135m-instruct").start()
    yield module
    module.stop()


@pytest.fixture(scope="module")
def expected(module):
    """What lazynb itself is answered."""
    text = module(QUESTION, **SURE)
    assert "Paris" in text
    return text


# Other clients, on our service.


def test_the_openai_client(module, expected):
    with openai.OpenAI(base_url=module.url, api_key=module.job.key) as client:
        assert [model.id for model in client.models.list()] == ["smollm2-135m-instruct"]
        ask = {"model": "smollm2-135m-instruct", "messages": CAPITAL, **SURE}
        answer = client.chat.completions.create(**ask)
        assert answer.choices[0].message.content == expected
        chunks = list(client.chat.completions.create(**ask, stream=True))
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        assert "".join(filter(None, pieces)) == expected
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_the_async_openai_client(module, expected):
    ask = {"model": "smollm2-135m-instruct", "messages": CAPITAL, **SURE}

    async def read(client):
        stream = await client.chat.completions.create(**ask, stream=True)
        pieces = [c.choices[0].delta.content async for c in stream if c.choices]
        return "".join(filter(None, pieces))

    async def main():
        async with openai.AsyncOpenAI(base_url=module.url, api_key=module.job.key) as client:
            answer = await client.chat.completions.create(**ask)
            return answer.choices[0].message.content, *await asyncio.gather(
                *(read(client) for _ in range(3))
            )

    assert set(asyncio.run(main())) == {expected}


def test_without_the_right_key_a_client_is_refused(module):
    with (
        openai.OpenAI(base_url=module.url, api_key="sk-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model="x", messages=CAPITAL, max_tokens=1)


def test_without_any_key_a_request_is_refused(module):
    body = json.dumps({"messages": CAPITAL, "max_tokens": 1}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{module.url}/chat/completions", body, timeout=10)
    assert caught.value.code == 401


def test_langchain(module, expected):
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        base_url=module.url, api_key=module.job.key, model="smollm2-135m-instruct", **SURE
    )
    answer = chat.invoke(QUESTION)
    assert answer.content == expected
    assert answer.usage_metadata["output_tokens"] > 0
    chunks = [chunk.content for chunk in chat.stream(QUESTION)]
    assert "".join(chunks) == expected
    assert len([chunk for chunk in chunks if chunk]) > 1


@pytest.mark.slow
def test_litellm(module, expected, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # asks nothing of the net
    import litellm

    ask = {
        "model": "openai/smollm2-135m-instruct",
        "api_base": module.url,
        "api_key": module.job.key,
        "messages": CAPITAL,
        **SURE,
    }
    answer = litellm.completion(**ask)
    assert answer.choices[0].message.content == expected
    assert answer.usage.completion_tokens > 0
    chunks = [c.choices[0].delta.content for c in litellm.completion(**ask, stream=True)]
    assert "".join(filter(None, chunks)) == expected
    assert len(list(filter(None, chunks))) > 1


def test_a_service_at_a_fixed_port_for_other_clients(place, demo_model):
    port = ports.free()
    module = TrainableModule("smollm2-135m-instruct").deploy_method(
        lazynb.deploy.llamacpp, openai_api=True, port=port, n_ctx=512
    )
    module.start()
    try:
        assert module.url == f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=module.url, api_key=module.job.key) as client:
            answer = client.chat.completions.create(model="any", messages=CAPITAL, **SURE)
        assert "Paris" in answer.choices[0].message.content
    finally:
        module.stop()


# lazynb as the client of a server that is not its own.


@pytest.fixture(scope="module")
def foreign(place, demo_model):
    """A llama.cpp server that lazynb did not start; its port."""
    port = ports.free()
    server = subprocess.Popen(
        [sys.executable, SERVER, "--model", demo_model, "--name", "theirs", "--port", str(port)],
        env=os.environ | {"LLAMA_API_KEY": "sk-theirs"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_healthy(server, port)
        yield port
    finally:
        server.kill()
        server.wait()


def wait_until_healthy(server, port):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.1)
    pytest.fail("the server did not begin to answer")


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/chat/completions", "/v1/chat/completions/"])
def test_a_server_that_lazynb_did_not_start(foreign, path):
    module = TrainableModule().deploy_method(
        lazynb.deploy.vllm, url=f"http://127.0.0.1:{foreign}{path}", api_key="sk-theirs"
    )
    assert module.status() == "remote"
    started = len(manager().jobs())
    assert "Paris" in module(QUESTION, **SURE)
    answer = module.answer(QUESTION, **SURE)
    pieces = list(answer)
    assert len(pieces) > 1
    assert "Paris" in "".join(pieces)
    assert answer.model == "theirs"  # its name was asked from the server
    assert len(manager().jobs()) == started
    module.start().stop()  # neither concerns a server of others
    assert "Paris" in module(QUESTION, **SURE)


def test_a_server_of_others_refuses_a_wrong_key_by_name(foreign):
    module = TrainableModule().deploy_method(
        lazynb.deploy.vllm, url=f"http://127.0.0.1:{foreign}/v1", api_key="sk-wrong"
    )
    with pytest.raises(LazynbError, match=r"(?i)key") as caught:
        module(QUESTION, max_tokens=1)
    assert "sk-wrong" not in str(caught.value)


def test_the_key_of_another_service_is_not_sent_to_a_server_of_others(module, foreign):
    """Both run on this machine; lazynb knows the key of its own, which does not concern others."""
    other = TrainableModule().deploy_method(
        lazynb.deploy.vllm, url=f"http://127.0.0.1:{foreign}/v1"
    )
    with pytest.raises(LazynbError, match=r"(?i)key"):
        other(QUESTION, max_tokens=1)
    assert other._deployment.endpoint().key == ""
