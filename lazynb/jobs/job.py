"""One background job, as a kernel sees it.

Everything is read from the job's folder when it is asked for, so it does not matter which kernel started the
job. A job whose supervisor is gone without a last word is cleaned up by whoever notices.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from lazynb.config import config
from lazynb.errors import JobError
from lazynb.jobs import log, ports, process, watcher
from lazynb.jobs.spec import ENDED_PHASES, LIVE_PHASES, JobState

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from lazynb.jobs.folder import JobFolder
    from lazynb.jobs.spec import Command, JobSpec

POLL = 0.03
STARTING = 30.0  # seconds that a supervisor of another kernel may take to report itself
STOP_MARGIN = 15.0  # seconds beyond the grace time after which a supervisor is itself killed


class Job:
    """A background job. Made by `Manager.submit`, `Manager.find` and `Manager.jobs`.

    Parameters
    ----------
    files : JobFolder
        Its folder.
    supervisor : subprocess.Popen, optional
        Its supervisor, in the process that started it.
    """

    def __init__(self, files: JobFolder, supervisor: subprocess.Popen[bytes] | None = None) -> None:
        self._files = files
        self._supervisor = supervisor
        self._parent = os.getpid()
        self._spec = files.read_spec()
        self.id: str = self._spec.id
        self.name: str = self._spec.name

    @property
    def folder(self) -> Path:
        """The folder of its state."""
        return self._files.path

    @property
    def log_path(self) -> Path:
        """The file that its program's output goes to."""
        return self._files.log

    @property
    def used_path(self) -> Path:
        """The file whose time is the last moment at which a request was seen under way."""
        return self._files.used

    @property
    def last_used(self) -> float:
        """When a request was last seen under way, or when it was ready first; seconds since the epoch."""
        return max(self._files.last_used(), self.state.since)

    def mark_used(self) -> None:
        """Say that a request is about to be sent: an idle service that is not told ends."""
        self._files.mark_used()

    @property
    def command(self) -> Command | None:
        """What is run; None while that is being found out."""
        if self.spec.command is not None:
            return self.spec.command
        try:
            return self._files.read_command()
        except (OSError, msgspec.DecodeError):
            return None

    @property
    def spec(self) -> JobSpec:
        """What was asked for."""
        with suppress(FileNotFoundError):
            self._spec = self._files.read_spec()
        return self._spec

    @property
    def state(self) -> JobState:
        """How it stands, read anew each time."""
        try:
            state = self._files.read_state()
        except (
            FileNotFoundError
        ):  # an old job, or the user tidied up; its supervisor ends then, too
            return JobState(phase="stopped", cause="its folder was removed")
        if state.phase in LIVE_PHASES and not self._supervised(state):
            state = self._files.read_state()  # its last word may have come in between
            if state.phase in LIVE_PHASES:
                state = self._clean_up(state)
        if state.phase in ENDED_PHASES:
            self._let_go()
        return state

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state.phase in LIVE_PHASES

    @property
    def owned(self) -> bool:
        """Whether this process started it."""
        return self.spec.owner == process.myself()

    @property
    def owner_alive(self) -> bool:
        """Whether the kernel that started it still runs."""
        return process.alive(self.spec.owner)

    @property
    def key(self) -> str:
        """The key that its service asks for."""
        return self._files.read_key()

    @property
    def url(self) -> str:
        """The address of its service: an OpenAI-compatible `…/v1`.

        Raises
        ------
        JobError
            It has none, or none yet.
        """
        port = self.state.port
        if port is None:
            raise JobError(
                f"{self.name} has no address", hint="Wait until it is ready.", job=self.name
            )
        return f"http://{ports.HOST}:{port}/v1"

    @property
    def uptime(self) -> float:
        """Seconds since it was asked for, until now or until it ended."""
        state = self.state
        until = state.since if state.phase in ENDED_PHASES else time.time()
        return max(0.0, until - self.spec.created)

    def pids(self) -> list[int]:
        """Return the processes of its whole tree."""
        supervisor = self.state.supervisor
        if not self.live or supervisor is None:
            return []
        return [supervisor.pid, *process.descendants(supervisor.pid)]

    def memory(self) -> int:
        """Return the bytes of memory that its whole process tree takes."""
        import psutil

        total = 0
        for pid in self.pids():
            try:
                total += psutil.Process(pid).memory_info().rss
            except psutil.Error:
                continue
        return total

    def tail(self, n: int = 20) -> list[str]:
        """Return the last lines of its log."""
        return log.tail(self._files, n)

    def wait(self, timeout: float | None = None, *, ended: bool = False) -> JobState:
        """Wait until it is ready. An interrupt ends the waiting, not the job.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait.
        ended : bool
            Wait until it has ended instead.

        Raises
        ------
        JobError
            It failed, it ended before it was ready, or the time is over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            state = self.state
            if state.phase == "failed":
                raise self.error(state)
            if state.phase == "stopped" and not ended:
                raise self.error(state)
            if state.phase == ("stopped" if ended else "ready"):
                return state
            if deadline is not None and time.monotonic() > deadline:
                goal = "over" if ended else "ready"
                raise JobError(
                    f"{self.name} is not {goal} after {timeout:g} s: it is {state.phase}",
                    hint="It goes on; wait again, or look at its log.",
                    job=self.name,
                    log_tail=self.tail(),
                )
            time.sleep(POLL)

    def error(self, state: JobState | None = None) -> JobError:
        """Return what went wrong, as an exception."""
        state = state or self.state
        verb = "failed" if state.phase == "failed" else f"was {state.phase}"
        return JobError(
            f"{self.name} {verb}" + (f": {state.cause}" if state.cause else ""),
            hint=state.hint,
            job=self.name,
            returncode=state.returncode,
            log_tail=state.log_tail or self.tail(),
        )

    def stop(self, *, wait: bool = True, why: str = "") -> None:
        """End it, from whichever kernel. It is no error that it has ended already.

        Parameters
        ----------
        wait : bool
            Return once no process of it is left.
        why : str
            The reason, which its state tells afterwards.
        """
        if why:
            with suppress(OSError):
                self._files.write("why", why.encode())
        deadline = time.monotonic() + STARTING
        while (state := self.state).supervisor is None and state.phase in LIVE_PHASES:
            if time.monotonic() > deadline:  # it never came up, so it cannot be asked
                return
            time.sleep(POLL)
        if state.phase in ENDED_PHASES or state.supervisor is None:
            return
        process.send(state.supervisor, signal.SIGTERM)
        deadline = time.monotonic() + config.stop_grace + STOP_MARGIN
        while wait and (self.live or process.alive(state.supervisor)):
            if time.monotonic() > deadline:
                process.send(state.supervisor, signal.SIGKILL)  # `live` cleans up after it
            time.sleep(POLL)

    def keep(self) -> None:
        """Let it outlive its kernel from now on."""
        spec = self.spec
        if not spec.keep:
            self._files.write_spec(msgspec.structs.replace(spec, keep=True))

    def subscribe(self, callback: Callable[[JobState], None]) -> Callable[[], None]:
        """Call back from a thread, at once and then whenever its state changes; return what ends that."""
        return watcher.watch(self, callback)

    def __repr__(self) -> str:
        return f"Job({self.name!r}, id={self.id!r}, phase={self.state.phase!r})"

    # Its supervisor.

    def _supervised(self, state: JobState) -> bool:
        if self._supervisor is not None and self._parent == os.getpid():  # not a fork of it
            return self._supervisor.poll() is None
        if state.supervisor is not None:
            return process.alive(state.supervisor)
        return time.time() - self.spec.created < STARTING

    def _let_go(self) -> None:
        """Bury the supervisor, and close the pipe to it."""
        supervisor = self._supervisor
        if (
            supervisor is not None
            and supervisor.stdin is not None
            and supervisor.poll() is not None
        ):
            supervisor.stdin.close()
            self._supervisor = None

    def _clean_up(self, state: JobState) -> JobState:
        """Kill what a dead supervisor left, and write down how the job ended."""
        process.kill_marked(self.id)
        failed = msgspec.structs.replace(
            state,
            phase="failed",
            since=time.time(),
            text="",
            process=None,
            cause="its supervisor was killed"
            if state.supervisor
            else "its supervisor did not start",
            hint="Start it again; the log tells what it did last.",
            log_tail=self.tail(),
        )
        with suppress(OSError):  # a full disk; whoever looks next comes to the same end
            self._files.write_state(failed)
        return failed
