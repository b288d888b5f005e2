"""Fixtures for the tests of jobs: a manager of its own for each test, and services as small as can be."""

import secrets
import sys
import time
from pathlib import Path

import pytest

from lazynb.jobs import Manager
from lazynb.jobs.process import marked
from lazynb.jobs.spec import Command, JobSpec, Probe

SERVICE = str(Path(__file__).parents[1] / "programs" / "service.py")
READY = Probe("/v1/chat/completions", {"max_tokens": 1})


class Jobs:
    """A manager, and short ways to submit to it."""

    def __init__(self, root):
        self.manager = Manager(root)
        self.submitted = []

    def submit(self, command=None, **facts):
        """Submit any job."""
        spec = JobSpec(id=secrets.token_hex(4), command=command, **{"name": "demo", **facts})
        self.submitted.append(self.manager.submit(spec))
        return self.submitted[-1]

    def service(self, *options, command=None, **facts):
        """Submit a service: tests/programs/service.py with these options."""
        argv = [sys.executable, SERVICE, "{port}", *options]
        return self.submit(Command(argv, {"KEY": "{key}"}, ready=READY, **(command or {})), **facts)

    def script(self, code, command=None, **facts):
        """Submit a run: a Python script that listens nowhere."""
        argv = [sys.executable, "-c", code]
        return self.submit(Command(argv, serves=False, **(command or {})), **facts)

    def another_kernel(self):
        """Return a manager that knows only what the folders say."""
        return Manager(self.manager.root)


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Jobs in a folder of the test; nothing of them is left running afterwards."""
    monkeypatch.setenv("LAZYLLM_HOME", str(tmp_path))
    monkeypatch.setenv("LAZYLLM_STOP_GRACE", "2")
    jobs = Jobs(tmp_path / "jobs")
    yield jobs
    for job in jobs.submitted:
        if job.folder.exists():
            job.stop()
        assert marked(job.id) == []


@pytest.fixture
def eventually():
    """Wait for something to become true."""

    def wait(condition, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)
        return found

    return wait
