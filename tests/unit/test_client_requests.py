"""What is sent, and what is made of the answer."""

import asyncio

import pytest
from fault_server import TEXT, FaultServer

from lazynb.client import requests, tasks
from lazynb.client.endpoint import Endpoint
from lazynb.client.loop import run, spawn
from lazynb.errors import OptionError, ServiceError
from lazynb.streaming import ask

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def server():
    server = FaultServer()
    yield server
    server.close()


def endpoint(server, fault, model="m"):
    return Endpoint(server.url(fault), name="demo", key="k", model=model)


def test_the_key_and_the_parameters_go_over_the_wire(server):
    answer = ask(endpoint(server, "good"), HELLO, temperature=0.5, seed=None, timeout=9.0).wait(10)
    _, headers, body = server.requests[-1]
    assert headers["authorization"] == "Bearer k"
    assert body == {
        "model": "m",
        "messages": HELLO,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert answer.usage.completion_tokens == answer.tokens == 13


def test_a_model_without_a_name_is_asked_for_once(server):
    nameless = endpoint(server, "good", model="")
    answers = [ask(nameless, HELLO).wait(10) for _ in range(3)]
    assert answers[0].model == "the-model"
    assert server.requests[-1][2]["model"] == "the-model"
    asked = [body for fault, _, body in server.requests if fault == "good" and body is None]
    assert len(asked) == 1


def test_a_server_without_a_list_of_models_needs_no_name(server):
    assert ask(endpoint(server, "no-models", model=""), HELLO).wait(10).text == TEXT
    assert "model" not in server.requests[-1][2]


def test_a_chat_that_is_not_streamed_is_its_text(server):
    assert run(tasks.chat(endpoint(server, "good"), HELLO, max_tokens=5, seed=None)) == TEXT
    assert server.requests[-1][2] == {"model": "m", "messages": HELLO, "max_tokens": 5}


def test_embeddings_keep_the_order_of_the_texts(server):
    assert run(tasks.embed(endpoint(server, "embeds"), "four")) == [4.0]
    assert run(tasks.embed(endpoint(server, "embeds"), ["one", "three", ""])) == [
        [3.0],
        [5.0],
        [0.0],
    ]
    assert run(tasks.embed(endpoint(server, "embeds"), [])) == []


def test_a_server_that_knows_no_sparse_embeddings_is_named(server):
    with pytest.raises(ServiceError, match="sent no sparse embedding"):
        run(tasks.embed(endpoint(server, "embeds"), "four", kinds=["dense", "sparse"]))


def test_a_ranking_has_the_best_first(server):
    documents = ["aa", "aaaa", "a"]
    assert run(tasks.rerank(endpoint(server, "ranks"), "q", documents)) == [
        (1, 4.0),
        (0, 2.0),
        (2, 1.0),
    ]
    assert run(tasks.rerank(endpoint(server, "ranks"), "q", documents, top_n=1)) == [(1, 4.0)]
    assert server.requests[-1][2]["top_n"] == 1


def test_an_answer_of_another_shape_is_an_error(server):
    with pytest.raises(ServiceError, match="not an answer"):
        run(tasks.embed(endpoint(server, "good"), "x"))


def test_a_call_that_waits_too_long_is_an_error(server):
    with pytest.raises(ServiceError, match=r"said nothing for 0\.2 seconds"):
        run(requests.post(endpoint(server, "silent"), "/embeddings", {"input": "x"}, 0.2))


@pytest.mark.parametrize("prompt", ["old", "new"])
def test_the_generate_route_of_old_vllm_is_spoken(server, prompt):
    url = f"http://127.0.0.1:{server.port}/generate"
    messages = [{"role": "user", "content": prompt}]
    answer = ask(Endpoint.from_url(url), messages, max_completion_tokens=9, temperature=0.1)
    chunks = list(answer)
    assert "".join(chunks) == answer.text == TEXT
    assert len(chunks) > 1
    assert server.requests[-1][2] == {
        "prompt": prompt,
        "max_tokens": 9,
        "temperature": 0.1,
        "stream": True,
    }
    assert run(tasks.chat(Endpoint.from_url(url + "/"), messages)) == TEXT
    assert server.requests[-1][2]["max_tokens"] == 1024


def test_a_conversation_becomes_a_plain_dialogue_for_the_generate_route(server):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    url = f"http://127.0.0.1:{server.port}/generate"
    assert ask(Endpoint.from_url(url), messages).wait(10).text == TEXT
    assert server.requests[-1][2]["prompt"] == "system: Be brief.\nuser: Hi\nassistant:"


def test_an_empty_answer_of_the_generate_route_is_an_error(server):
    nothing = Endpoint(server.url("empty").replace("/v1", "/generate"), "demo", protocol="vllm")
    with pytest.raises(ServiceError, match="empty answer"):
        ask(nothing, HELLO).wait(10)


def test_requests_run_on_one_loop_and_can_be_awaited_from_any(server):
    def request():
        return tasks.chat(endpoint(server, "good"), HELLO)

    async def both():
        return await asyncio.gather(*(asyncio.wrap_future(spawn(request())) for _ in range(2)))

    assert asyncio.run(both()) == [TEXT, TEXT]
    with pytest.raises(RuntimeError, match="run or spawn"):
        asyncio.run(request())


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"temprature": 1.0}, "temperature"),
        ({"maxtokens": 1}, "max_tokens"),
        ({"temperature": "hot"}, "float"),
        ({"max_tokens": 1.5}, "int"),
        ({"seed": True}, "int"),
    ],
)
def test_a_wrong_parameter_is_an_error_before_anything_is_sent(server, params, words):
    before = len(server.requests)
    with pytest.raises(OptionError) as caught:
        ask(endpoint(server, "good"), HELLO, **params)
    assert words in str(caught.value)
    assert len(server.requests) == before
