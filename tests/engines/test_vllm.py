"""What vLLM does beyond the contract of all engines: embeddings and rankings by its pooling runner, JSON schemas."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request

import openai
import pytest

from lazynb.engines.commandline import LAUNCH
from lazynb.engines.environment import environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ready(installed, submit):
    """Start a service of vLLM and wait for it."""
    installed("vllm")

    def start(model):
        job = submit(str(model), "vllm")
        job.wait(timeout=280)
        return job

    return start


def test_its_pooling_runner_embeds(ready, embedding_model):
    job = ready(embedding_model)
    with openai.OpenAI(base_url=job.url, api_key=job.key) as client:
        texts = ["A cat sat on the mat.", "A kitten rests on a rug.", "The stock market fell."]
        data = client.embeddings.create(model="demo", input=texts).data
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="demo", input={"a": 1})
    cat, kitten, market = (item.embedding for item in data)

    def near(one, other):
        return sum(x * y for x, y in zip(one, other, strict=True))

    assert near(cat, kitten) > 0.5 > near(cat, market)
    job.stop()


SERVER = """
import sys, uvicorn

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"open"})

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


def test_a_server_that_runs_inside_of_the_launcher_asks_for_the_key_on_every_route(
    installed, tmp_path, unused_port
):
    installed("vllm")
    (tmp_path / "server.py").write_text(SERVER)
    command = [
        environment("vllm").python,
        LAUNCH,
        "server",
        "--lazynb-key=--api-keys",
        str(unused_port),
    ]
    env = {"LAZYNB_KEY": "secret", "PYTHONPATH": str(tmp_path)}

    def status(path, key):
        url = f"http://127.0.0.1:{unused_port}{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    with subprocess.Popen(command, env=env) as program:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    assert status("/health", "") == 200
                    break
                except urllib.error.URLError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            for path in ("/", "/metrics", "/v1/models"):
                assert (status(path, "wrong"), status(path, "secret")) == (401, 200)
        finally:
            program.kill()


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
