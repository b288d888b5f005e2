"""All jobs of this user on this machine: starting them, finding them, cleaning up after them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from lazynb.config import PREFIX, SETTINGS, config
from lazynb.errors import LazynbError
from lazynb.jobs import process
from lazynb.jobs.folder import JobFolder
from lazynb.jobs.job import Job

if TYPE_CHECKING:
    from pathlib import Path

    from lazynb.jobs.spec import JobSpec

KEPT_FOLDERS = 50
KEPT_SECONDS = 7 * 24 * 3600


class Manager:
    """Starts and finds background jobs.

    Parameters
    ----------
    root : Path
        The folder that holds one folder per job.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def submit(self, spec: JobSpec) -> Job:
        """Start a job; returns at once.

        Raises
        ------
        LazynbError
            Its state cannot be written: no space, no permission.
        """
        spec = msgspec.structs.replace(
            spec,
            owner=process.myself(),
            host=_host(),
            created=spec.created or time.time(),
        )
        from secrets import token_urlsafe

        files = JobFolder(self.root / spec.id)
        try:
            files.create(spec, token_urlsafe(32))
            supervisor = _start_supervisor(files)
        except FileExistsError as error:
            raise LazynbError(
                f"There is a job {spec.id} already", hint="Ids are used once."
            ) from error
        except OSError as error:
            shutil.rmtree(files.path, ignore_errors=True)
            raise LazynbError(
                f"{spec.name} cannot be started: {error.strerror} ({error.filename or files.path})",
                hint=f"Jobs are kept in {self.root}; free some space or permit writing there,"
                " or set LAZYLLM_HOME to another folder.",
            ) from error
        job = Job(files, supervisor)
        with self._lock:
            self._jobs[spec.id] = job
        return job

    def jobs(self) -> list[Job]:
        """Return every job of this machine, newest first."""
        return [job for _, job in self._listed()]

    def find(self, name: str) -> Job | None:
        """Return the newest live job of this name or id, whichever kernel started it."""
        for job in self.jobs():
            if name in (job.name, job.id) and job.live:
                return job
        return None

    def collect(self) -> None:
        """Clean up: kill what dead supervisors left behind, and drop old folders of jobs that have ended."""
        kept = 0
        for created, job in self._listed():
            with suppress(OSError):  # another kernel does the same at this moment
                if job.live:
                    continue
                kept += 1
                if kept > KEPT_FOLDERS or time.time() - created > KEPT_SECONDS:
                    shutil.rmtree(job.folder, ignore_errors=True)

    def _listed(self) -> list[tuple[float, Job]]:
        here = _host()
        found = []
        try:
            ids = os.listdir(self.root)  # noqa: PTH208
        except OSError:
            ids = []
        for name in ids:
            files = JobFolder(self.root / name)
            try:
                spec = files.read_spec()
                if spec.host != here:  # a shared home folder; its processes are out of sight
                    continue
                with self._lock:
                    job = self._jobs.get(name) or self._jobs.setdefault(name, Job(files))
            except (OSError, msgspec.DecodeError):  # being made or dropped at this moment
                continue
            found.append((spec.created, job))
        return sorted(found, key=lambda item: item[0], reverse=True)


def _host() -> str:
    return os.uname().nodename


def _start_supervisor(files: JobFolder) -> subprocess.Popen[bytes]:
    with os.fdopen(os.open(files.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as log:
        # -P: no module of the notebook's folder stands in for one of ours. The pipe to its standard input
        # stays open as long as this process lives: that is how the supervisor knows.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "lazynb.jobs.supervisor", str(files.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=_environment(),
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    """Return this process's environment, with the settings that were changed in Python."""
    changed = {
        PREFIX + name.upper(): str(value)
        for name in SETTINGS
        for value, origin in [config.lookup(name)]
        if origin == "set in this kernel"
    }
    return {**os.environ, **changed}


_managers: dict[Path, Manager] = {}


def manager() -> Manager:
    """Return this process's manager of the jobs in `config.jobs_dir`; the first use cleans up."""
    root = config.jobs_dir
    if root not in _managers:
        _managers[root] = Manager(root)
        threading.Thread(target=_managers[root].collect, name="lazynb-collect", daemon=True).start()
    return _managers[root]
