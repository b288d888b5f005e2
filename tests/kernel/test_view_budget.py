"""What a streamed answer costs on the iopub channel, with a client that plays the page."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PARROT = Path(__file__).parents[1] / "programs" / "parrot.py"
SAY = """
import json
from lazynb.client.endpoint import Endpoint
from lazynb.notebook.answerview import show_answer
from lazynb.streaming import ask
def say(chunks, rate):
    message = {"role": "user", "content": json.dumps({"say": chunks, "rate": rate})}
    show_answer(ask(Endpoint(url="http://127.0.0.1:PORT/v1", name="demo", model="demo"), [message]))
"""


@pytest.fixture
def kernel_env(kernel_env):
    return {**kernel_env, "JPY_SESSION_NAME": "a.ipynb"}


@pytest.fixture
def shell(start_kernel):
    with subprocess.Popen([sys.executable, PARROT], stdout=subprocess.PIPE, text=True) as parrot:
        kernel = start_kernel()
        kernel.run(SAY.replace("PORT", parrot.stdout.readline().strip()))
        yield kernel
        parrot.kill()


def stream(kernel, count, rate, *, report):
    """Run a cell; with `report`, answer the widget as stream.js does. Returns the messages and their times."""
    cell = kernel.client.execute(f"say(['word '] * {count}, {rate})")
    seen = []
    while True:
        message = kernel.client.get_iopub_msg(timeout=60)
        kind, content = message["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != cell and kind != "comm_msg":
            continue  # what is sent in answer to the page counts as well
        seen.append((message["header"]["date"].timestamp(), kind, content))
        state = content.get("data", {}).get("state", {}) if kind == "comm_open" else {}
        if report and "answer" in state:
            data = {"answer": state["answer"], "text": 0, "thought": 0}
            page = kernel.client.session.msg(
                "comm_open", {"comm_id": "page", "target_name": "lazynb.view", "data": data}
            )
            kernel.client.shell_channel.send(page)
        if kind == "status" and content["execution_state"] == "idle":
            return seen


def size(content):
    return len(json.dumps(content, default=str))


@pytest.mark.slow
def test_4000_tokens_at_400_a_second_cost_250_messages_and_80_kb(shell):
    stream(shell, 5, 100, report=True)
    seen = stream(shell, 4000, 400, report=True)
    settled = next(i for i, (_, kind, _) in enumerate(seen) if kind == "update_display_data")
    live = seen[:settled]
    deltas = [
        (at, content["data"]["content"])
        for at, kind, content in live
        if kind == "comm_msg" and "content" in content["data"]
    ]
    text = "".join(delta.get("t", "") for _, delta in deltas)
    assert text == "word " * 4000  # all of it, and nothing twice
    assert len(live) <= 250
    assert sum(size(content) for _, _, content in live) <= 80_000
    for _, kind, content in live:
        if kind == "comm_msg":
            assert size(content) - len(content["data"].get("content", {}).get("t", "")) <= 250
    times = [at for at, _ in deltas]
    assert all(later - earlier > 0.9 for earlier, later in zip(times, times[20:], strict=False))


def test_a_page_that_does_not_report_gets_plain_output_within_a_second(shell):
    seen = stream(shell, 300, 100, report=False)
    begin = seen[0][0]
    plain = [
        (at - begin, content["data"])
        for at, kind, content in seen
        if kind == "update_display_data" and "text/markdown" not in content["data"]
    ]
    assert 0.8 < plain[0][0] < 2.5
    assert "application/vnd.jupyter.widget-view+json" not in plain[0][1]
    total = sum(len(data["text/plain"]) for _, data in plain)
    assert total < 12 * 300 * len("word ")
