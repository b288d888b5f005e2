"""Engines started as a user's are: planned, supervised, probed."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lazynb.jobs import Job


ENVIRONMENTS = Path(
    os.environ.get("LAZYNB_TEST_ENVS", Path(__file__).parents[2] / ".cache" / "envs")
)
"""The engines' environments of all test runs; they are large."""
PROGRAMS = Path(__file__).parents[1] / "programs"


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_cache) -> Iterator[Path]:
    """A home for the services of one module."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAZYLLM_HOME", str(home))
        patch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(model_cache))
        patch.setenv("LAZYLLM_ENVS_DIR", str(ENVIRONMENTS))
        patch.delenv("LAZYLLM_MODEL_PATH", raising=False)
        yield home


@pytest.fixture(scope="module")
def installed(place) -> Callable[[str], None]:
    """Skip where the environment of an engine was not made: `make envs` makes it."""
    from lazynb.engines.environment import environment

    def check(engine: str) -> None:
        if not environment(engine).usable:
            pytest.skip(f"the environment of {engine} is not installed: make envs")

    return check


@pytest.fixture(scope="session")
def embedding_model(model_cache) -> str:
    """A real sentence-transformers folder, found and fetched as a user's would be."""
    from lazynb.hub import fetch, resolve

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAZYLLM_MODEL_CACHE_DIR", str(model_cache))
        return fetch(resolve("all-minilm-l6-v2"), report=lambda *_: None).path


@pytest.fixture(scope="module")
def reranker_model(installed, model_cache, embedding_model) -> str:
    installed("rerank")
    target = model_cache / "tiny-reranker"
    if not (target / "config.json").exists():
        from lazynb.engines.environment import environment

        program = [
            environment("rerank").python,
            PROGRAMS / "make_reranker.py",
            embedding_model,
            target,
        ]
        subprocess.run(program, check=True, capture_output=True)
    return str(target)


@pytest.fixture(scope="module")
def submit(place) -> Iterator[Callable[..., Job]]:
    """Start a service and return at once; whatever was started is stopped in the end."""
    from lazynb.engines import get, plan
    from lazynb.hub import resolve
    from lazynb.jobs import manager
    from lazynb.jobs.spec import JobSpec

    jobs = []

    def start(model: str, engine: str, *, port: int | None = None, **options: Any) -> Job:
        found = resolve(model, download=False)
        command = plan(found, get(engine), options, "demo")
        spec = JobSpec(
            id=secrets.token_hex(4),
            name="demo",
            model=model,
            engine=engine,
            command=command,
            port=port,
        )
        jobs.append(manager().submit(spec))
        return jobs[-1]

    yield start
    for job in jobs:
        job.stop()


@dataclass
class Api:
    """The service's HTTP interface, as any client would see it."""

    job: Job

    @property
    def port(self) -> int:
        port = self.job.state.port
        assert port is not None
        return port

    def connect(
        self, path: str, body: Any = None, key: str | None = None
    ) -> http.client.HTTPConnection:
        """Send a request; do not wait for its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Authorization": f"Bearer {self.job.key if key is None else key}"}
        data = None if body is None else json.dumps(body) if not isinstance(body, str) else body
        connection.request(
            "GET" if data is None else "POST",
            path,
            data,
            headers | ({"Content-Type": "application/json"} if data else {}),
        )
        return connection

    def call(self, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        """Return the status and the body of an answer, read as JSON where it is that."""
        connection = self.connect(path, body, key)
        try:
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def running(self) -> int:
        """How many requests the engine works on, asked from itself."""
        status, slots = self.call("/slots")
        if status == 404:  # vLLM counts them in its metrics
            _, text = self.call("/metrics")
            counts = re.findall(
                r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.MULTILINE
            )
            assert counts, text
            return round(sum(map(float, counts)))
        assert status == 200, slots
        return sum(slot["is_processing"] for slot in slots)

    def wait_until_running(self, count: int, seconds: float) -> float:
        """Wait for so many requests at work; return the seconds that it took."""
        begun = time.monotonic()
        while (now := self.running()) != count:
            assert time.monotonic() - begun < seconds, f"{now} requests at work, not {count}"
            time.sleep(0.03)
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def api(service: Job) -> Api:
    """The service under test."""
    return Api(service)


@pytest.fixture
def api_of() -> Callable[[Job], Api]:
    """The interface of a service, once that is ready."""

    def ready(job: Job) -> Api:
        job.wait(timeout=120)
        return Api(job)

    return ready
