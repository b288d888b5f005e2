"""A program that a supervisor runs: started with its own environment, read line by line, ended with all it started.

The supervisor is the reaper of every descendant of the program (`PR_SET_CHILD_SUBREAPER`): a process that made
itself a daemon comes back to it as a child. So the tree has ended exactly when the operating system says that
the supervisor has no child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from lazynb.jobs import process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CHUNK = 64 * 1024
STUBBORN = 10.0
"""Seconds after which a process that even SIGKILL does not end (stuck in a driver) is given up."""


class Program:
    """A running program.

    Parameters
    ----------
    argv : sequence of str
        Its argument list.
    env : mapping
        Its environment.
    cwd : str, optional
        Where it runs.

    Raises
    ------
    OSError
        It cannot be run.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None = None) -> None:
        supervisor = os.getpid()
        self._process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Dies with a supervisor that is killed. Nothing else runs in between, and the library is loaded.
            preexec_fn=lambda: process.die_with_parent(supervisor),  # noqa: PLW1509
        )
        assert self._process.stdout is not None  # noqa: S101  (a PIPE was asked for)
        self.output = self._process.stdout
        os.set_blocking(self.output.fileno(), False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """What it returned; None while it runs."""
        return self._process.returncode

    def read(self) -> bytes | None:
        """Return output that is there; None when there is none now, and nothing at its end."""
        try:
            return os.read(self.output.fileno(), CHUNK)
        except BlockingIOError:
            return None

    def ended(self, status: int) -> None:
        """Take note of its end, which the supervisor saw."""
        self._process.returncode = os.waitstatus_to_exitcode(status)


def environment(extra: Mapping[str, str], job: str) -> dict[str, str]:
    """Return the environment of a program: the kernel's, without what concerns the kernel alone."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("JPY_")}
    if env.get("MPLBACKEND", "").startswith("module://"):  # the notebook's own, absent elsewhere
        del env["MPLBACKEND"]
    return {**env, "PYTHONUNBUFFERED": "1", **extra, process.MARKER: job}


def reap(program: Program | None) -> bool:
    """Bury the children that have ended; return whether there is any left."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        if program is not None and pid == program.pid:
            program.ended(status)


def end_all(program: Program | None, grace: float, pump: Callable[[float], None]) -> None:
    """End every descendant of this process, and return when the system says that none is left.

    Parameters
    ----------
    program : Program or None
        The one whose return code is wanted.
    grace : float
        Seconds between SIGTERM and SIGKILL.
    pump : callable
        Called over and over with a time to spend; reads output meanwhile.
    """
    asked: set[int] = set()
    deadline = time.monotonic() + grace
    while reap(program) and time.monotonic() < deadline + STUBBORN:
        late = time.monotonic() > deadline
        for pid in process.descendants(os.getpid()):
            if not late and pid in asked:
                continue
            asked.add(pid)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        pump(0.03)
