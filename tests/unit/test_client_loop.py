"""One event loop in a thread serves all threads, and stops with the process."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from fault_server import TEXT, FaultServer

from lazynb.client import tasks
from lazynb.client.endpoint import Endpoint
from lazynb.client.loop import get_loop, run, spawn

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def server():
    server = FaultServer()
    yield server
    server.close()


def script(code, *args):
    """Run code in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_results_and_errors_come_back():
    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    async def fail():
        raise ValueError("no")

    assert run(double(4)) == 8
    assert spawn(double(4)).result(5) == 8
    with pytest.raises(ValueError, match="no"):
        run(fail())


def test_all_threads_share_one_loop():
    loops = []
    threads = [threading.Thread(target=lambda: loops.append(get_loop())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(loops) == {get_loop()}


def test_waiting_for_itself_is_an_error_instead_of_a_hang():
    async def inner():
        return 1

    async def outer():
        return run(inner())

    with pytest.raises(RuntimeError, match="wait for itself"):
        run(outer())


def test_an_interrupt_cancels_waits_for_the_clean_up_and_passes_through(server):
    cleaned = []

    async def request():
        try:
            await tasks.chat(Endpoint(server.url("silent"), "demo", model="m"), HELLO)
        finally:
            await asyncio.sleep(0.1)
            cleaned.append(True)

    main = threading.main_thread().ident
    threading.Timer(0.3, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        run(request())
    assert cleaned
    server.wait_left("silent")


def test_an_interrupt_while_an_answer_is_waited_for_does_not_cancel_it(server):
    from lazynb.streaming import ask

    answer = ask(Endpoint(server.url("slow"), "demo", model="m"), HELLO)
    main = threading.main_thread().ident
    threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        answer.wait(10)
    assert answer.wait(10).text == "one two three"


READ = """
import sys
from lazynb.client.endpoint import Endpoint
from lazynb.streaming import ask
endpoint = Endpoint(sys.argv[1], 'demo', model='m')
answer = ask(endpoint, [{'role': 'user', 'content': 'hello'}])
"""


def test_a_process_ends_quietly_with_open_connections(server):
    ended = script(READ + "print(answer.wait())", server.url("good"))
    assert (ended.stdout.strip(), ended.stderr, ended.returncode) == (TEXT, "", 0)


def test_a_process_ends_quietly_and_at_once_in_mid_answer(server):
    start = time.monotonic()
    ended = script(READ + "next(iter(answer.parts()))", server.url("endless"))
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert time.monotonic() - start < 10
    server.wait_left("endless")


def test_a_forked_child_has_a_loop_of_its_own(server):
    code = READ + (
        "import os, warnings\n"
        "answer.wait()\n"
        "warnings.simplefilter('ignore')\n"
        "pid = os.fork()\n"
        "text = ask(endpoint, answer.messages).wait(10).text\n"
        "os.write(1, text.encode() + b'\\n')\n"
        "if not pid: os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    ended = script(code, server.url("good"))
    assert ended.stdout.splitlines() == [TEXT, TEXT], ended.stderr
    assert ended.stderr == ""


def test_the_http_library_is_loaded_when_it_is_needed():
    code = "import sys, lazynb.streaming, lazynb.client.endpoint; print({'aiohttp', 'tenacity'} & set(sys.modules))"
    assert script(code).stdout.strip() == "set()"


def test_no_proxy_is_used_for_this_machine_and_the_one_of_the_environment_for_others(
    server, monkeypatch
):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.port}/proxied")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert run(tasks.chat(Endpoint(server.url("good"), "demo", model="m"), HELLO)) == TEXT
    assert os.environ["http_proxy"]
    from lazynb.client.connection import _proxy

    assert (
        _proxy(Endpoint("http://far.example/v1", "far"))
        == f"http://127.0.0.1:{server.port}/proxied"
    )
