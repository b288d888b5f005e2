"""Nothing is lost on the way: tokens through a cell, and many prompts through `map`, against a bare HTTP client."""

import asyncio
import http.client
import json
import os
import sys
import time
from urllib.parse import urlsplit

import pytest

from tests.conftest import DEMO
from tests.kernel.conftest import Kernel

pytestmark = [pytest.mark.bench, pytest.mark.slow]

ROUNDS = 15
STORY = "Tell me a long story about a cat, a dog and a fox."
TOKENS = 250
PROMPTS = 500
CONCURRENCY = 16


@pytest.fixture
def kernel(tmp_path, model_cache):
    """A kernel with a page in front of it, the demo model running."""
    env = {
        **os.environ,
        "LAZYLLM_HOME": str(tmp_path / "home"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "LAZYLLM_MODEL_CACHE_DIR": str(model_cache),
        "JPY_SESSION_NAME": "a.ipynb",
    }
    kernel = Kernel(sys.executable, tmp_path, env)
    reply = kernel.run(f"%load_ext lazynb\n%lazyllm deploy {DEMO} --wait")
    assert reply.status == "ok", reply
    yield kernel
    kernel.run("%lazyllm stop all")
    kernel.kill()
    kernel.manager.cleanup_resources()


def service(kernel):
    reply = kernel.run(
        "from lazynb.jobs import manager\n"
        f"job = manager().find('{DEMO}')\nimport json\nprint(json.dumps([job.url, job.key]))"
    )
    return json.loads(reply.text)


def bare_rate(url, key):
    """Tokens a second, first to last, as the plainest client reads them."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    body = {
        "messages": [{"role": "user", "content": STORY}],
        "stream": True,
        "temperature": 0,
        "max_tokens": TOKENS,
    }
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", f"{address.path}/chat/completions", json.dumps(body), headers)
    times = []
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            delta = json.loads(line[6:])["choices"][0]["delta"]
            if delta.get("content"):
                times.append(time.perf_counter())
    connection.close()
    return (len(times) - 1) / (times[-1] - times[0])


def cell_rate(kernel):
    """Tokens a second, first to last, of an answer that streams into a cell with a page."""
    cell = kernel.begin(
        f"%%lazyllm {DEMO} --temperature 0 --max-tokens {TOKENS} -o answer\n{STORY}"
    )
    while True:  # play the page: report the view
        message = kernel.client.get_iopub_msg(timeout=60)
        kind, content = message["msg_type"], message["content"]
        state = content.get("data", {}).get("state", {}) if kind == "comm_open" else {}
        if "answer" in state:
            data = {"answer": state["answer"], "text": 0, "thought": 0}
            page = {"comm_id": "page", "target_name": "lazynb.view", "data": data}
            kernel.client.shell_channel.send(kernel.client.session.msg("comm_open", page))
        over = kind == "status" and content["execution_state"] == "idle"
        if over and message["parent_header"].get("msg_id") == cell:
            break
    return float(kernel.run("print(answer.tokens_per_second)").text)


def test_tokens_through_the_cell_are_as_fast_as_through_a_bare_client(kernel, measured):
    url, key = service(kernel)
    bare_rate(url, key)  # the prompt is in the cache from now on
    cell_rate(kernel)
    bare, cell = [], []
    for turn in range(ROUNDS):  # the best of each: other programs can only slow one down
        if turn >= 3 and max(cell) / max(bare) >= 0.95:
            break
        bare.append(bare_rate(url, key))
        cell.append(cell_rate(kernel))
    measured("tokens a second, bare client", max(bare))
    measured("tokens a second through the cell, to bare", max(cell) / max(bare), at_least=0.95)


@pytest.fixture
def module(tmp_path, model_cache, monkeypatch):
    monkeypatch.setenv("LAZYLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(model_cache))
    import lazynb

    module = lazynb.TrainableModule(DEMO).start()
    yield module
    module.stop()


async def ask_all(url, key, prompts):
    """Ask all prompts with the plainest code there is."""
    import aiohttp

    left = iter(prompts)

    async def work(session):
        for prompt in left:
            body = {
                "messages": [{"role": "user", "content": prompt}],
                "temperature": 0,
                "max_tokens": 4,
            }
            async with session.post(f"{url}/chat/completions", json=body) as response:
                (await response.json())["choices"][0]["message"]["content"]

    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(work(session) for _ in range(CONCURRENCY)))


def test_map_reaches_the_throughput_of_the_server(module, measured):
    prompts = [f"{number} + {number} =" for number in range(PROMPTS)]
    bare, ours = [], []
    module.map(prompts[:50], progress=False, temperature=0, max_tokens=4)
    for turn in range(12):  # the best of each: other programs can only slow one down
        if turn >= 2 and min(bare) / min(ours) >= 0.95:
            break
        begin = time.perf_counter()
        asyncio.run(ask_all(module.url, module.job.key, prompts))
        bare.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        results = module.map(
            prompts, concurrency=CONCURRENCY, progress=False, temperature=0, max_tokens=4
        )
        ours.append(time.perf_counter() - begin)
        assert not results.errors
        assert len(results) == PROMPTS
    measured("prompts a second, bare client", PROMPTS / min(bare))
    measured("prompts a second through map, to bare", min(bare) / min(ours), at_least=0.95)


def test_sharing_a_module_is_cheap(module, measured):
    begin = time.perf_counter()
    shares = [module.share(prompt=f"You are number {number}.") for number in range(1000)]
    each = (time.perf_counter() - begin) / len(shares)
    measured("sharing a module", 1e6 * each, at_most=20, unit="us")
