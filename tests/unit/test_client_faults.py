"""Whatever a server does wrong is one clear error, in seconds, and names the service and what to do."""

import socket
import time

import pytest
from fault_server import TEXT, FaultServer

from lazynb.client import tasks
from lazynb.client.endpoint import Endpoint
from lazynb.client.loop import run
from lazynb.errors import LazynbError, ServiceError
from lazynb.streaming import ask

HELLO = [{"role": "user", "content": "hello"}]
KEY = "sk-very-secret"


@pytest.fixture(scope="module")
def server():
    server = FaultServer()
    yield server
    server.close()


def endpoint(server, fault, **kwargs):
    return Endpoint(server.url(fault), name="demo", key=KEY, model="m", **kwargs)


def failure(server, fault, **params):
    """The answer and the error of a request to a server with this fault."""
    answer = ask(endpoint(server, fault), HELLO, **params)
    start = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        answer.wait(20)
    assert time.monotonic() - start < 10
    assert answer.status == "failed"
    assert answer.error is caught.value
    assert caught.value.service == "demo"
    assert "demo" in caught.value.message
    assert caught.value.hint
    assert KEY not in f"{caught.value!s} {caught.value!r}"
    return answer, caught.value


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("status-401", 401, ["refused the key", "…"]),
        ("status-404", 404, ["does not exist", "/status-404/v1"]),
        ("status-400", 400, ["temperature must be positive"]),
        ("status-429", 429, ["Rate limit reached", "again in 7 s"]),
        ("status-500", 500, ["CUDA out of memory", "%lazyllm logs"]),
        ("status-502", 502, ["failed (502)"]),
        ("html", None, ["Welcome to nginx", "/v1"]),
        ("empty", None, ["empty answer"]),
        ("other-json", None, ["hello", "not an answer"]),
        ("not-http", None, ["SSH-2.0", "OpenAI-compatible"]),
    ],
)
def test_an_answer_that_is_none_is_explained_and_not_asked_for_again(server, fault, status, words):
    answer, error = failure(server, fault)
    assert error.status == status
    for word in words:
        assert word in str(error)
    assert answer.text == ""
    assert len(server.bodies(fault)) == 1
    with pytest.raises(ServiceError):
        run(tasks.chat(endpoint(server, fault), HELLO))


def test_a_key_that_is_missing_is_asked_for(server):
    with pytest.raises(ServiceError, match="wants a key"):
        ask(Endpoint(server.url("status-401"), "demo", model="m"), HELLO).wait(10)


def test_a_server_that_is_not_there_is_named_with_its_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    away = Endpoint(f"http://127.0.0.1:{port}/v1", "demo", model="m")
    with pytest.raises(
        ServiceError, match=rf"(?i)demo cannot be reached at http://127.0.0.1:{port}/v1.*refused"
    ) as caught:
        ask(away, HELLO).wait(10)
    assert "%lazyllm ps" in caught.value.hint


def test_a_host_without_an_address_is_an_error_not_a_hang():
    with pytest.raises(ServiceError, match="cannot be reached"):
        ask(Endpoint("http://no-such-host.invalid/v1", "demo", model="m"), HELLO).wait(20)


@pytest.mark.parametrize("fault", ["silent", "stuck"])
def test_a_server_that_says_nothing_is_given_up_after_the_timeout(server, fault):
    answer, error = failure(server, fault, timeout=0.3)
    assert "said nothing for 0.3 seconds" in str(error)
    assert "timeout=" in error.hint
    assert 0.3 <= answer.seconds < 2
    server.wait_left(fault)


def test_a_request_on_a_kept_alive_connection_that_is_closed_is_sent_again(server):
    for _ in range(4):
        assert ask(endpoint(server, "drops-kept-alive"), HELLO).wait(10).text == TEXT
    assert len(server.bodies("drops-kept-alive")) > 4
    assert server.connections["drops-kept-alive"] == 4


def test_a_server_that_closes_every_connection_is_tried_three_times(server):
    _, error = failure(server, "drops-all")
    assert "cannot be reached" in error.message
    assert len(server.bodies("drops-all")) == 3


@pytest.mark.parametrize(
    ("fault", "words", "text"),
    [
        ("cut", "broke off in mid-answer", "Paris is the cap"),
        ("cut-at-once", "broke off in mid-answer", "Paris is the cap"),
        ("ends-early", "broke off in mid-answer", "Paris is "),
        ("error-event", "failed in mid-answer: engine died", "Paris is "),
        ("error-line", "failed in mid-answer: engine died", "Paris is "),
        ("bad-event", "{broken", "Paris"),
        ("bad-utf8", "not an answer", ""),
    ],
)
def test_what_came_before_a_failure_is_kept_and_nothing_is_asked_twice(server, fault, words, text):
    answer, error = failure(server, fault)
    assert words in error.message
    assert answer.text == text
    assert len(server.bodies(fault)) == 1
    seen = []
    with pytest.raises(ServiceError):
        all(seen.append(chunk) is None for chunk in answer)
    assert "".join(seen) == text


@pytest.mark.parametrize(
    "fault", ["no-done", "no-newline", "stays-open", "not-streamed", "single-bytes", "decorated"]
)
def test_a_server_may_be_sloppy(server, fault):
    answer = ask(endpoint(server, fault), HELLO).wait(20)
    assert answer.text == TEXT
    assert answer.status == "done"
    assert answer.finish_reason == "stop"


def test_a_server_that_refuses_stream_options_is_asked_without_them(server):
    for _ in range(2):
        assert ask(endpoint(server, "no-stream-options"), HELLO).wait(10).text == TEXT
    asked = ["stream_options" in body for body in server.bodies("no-stream-options")]
    assert asked == [True, False, False]  # the second answer remembers


def test_what_cannot_be_sent_is_an_error_of_the_caller(server):
    with pytest.raises(LazynbError, match="cannot be sent"):
        ask(endpoint(server, "good"), [{"role": "user", "content": object()}]).wait(10)


def test_a_server_that_takes_no_connection_is_given_up_once(monkeypatch):
    import aiohttp

    from lazynb.client import connection

    monkeypatch.setattr(connection, "TIMEOUT", aiohttp.ClientTimeout(total=None, sock_connect=0.4))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        answer = ask(Endpoint(f"http://127.0.0.1:{port}/v1", "demo", model="m"), HELLO)
        with pytest.raises(ServiceError, match=r"cannot be reached.*no connection in time"):
            answer.wait(10)
        for filler in fillers:
            filler.close()
    assert 0.4 <= answer.seconds < 0.8
