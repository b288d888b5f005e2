"""Processes of this machine, as the kernel's own tables (`/proc`) show them.

A process id alone says little: it is used again after its process ended. Here a process is its id together
with the moment it started, and a job's processes are known by `LAZYNB_JOB` in their environment, which every
descendant inherits, whatever session it moved to. Only the standard library is used: the supervisor and the
notebook's kernel look at processes often, and must stay small.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lazynb.jobs.spec import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKER = "LAZYNB_JOB"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STATE, _PARENT, _STARTED = 0, 1, 19  # fields of /proc/PID/stat after the name


def identify(pid: int) -> Owner | None:
    """Return the process with this id; None when there is none, or only its corpse."""
    fields = _stat(pid)
    if fields is None or fields[_STATE] in ("Z", "X"):
        return None
    return Owner(pid=pid, ticks=int(fields[_STARTED]))


def myself() -> Owner:
    """Return this process."""
    fields = _stat(os.getpid())
    return Owner(pid=os.getpid(), ticks=int(fields[_STARTED]) if fields else 0)


def alive(process: Owner | None) -> bool:
    """Whether this very process still runs."""
    return process is not None and identify(process.pid) == process


def send(process: Owner, number: signal.Signals) -> None:
    """Send a signal to this very process; nothing happens when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if alive(process):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def marked(job: str) -> list[int]:
    """Return the processes of this user that carry the mark of a job."""
    mark = f"{MARKER}={job}".encode()
    spared = set(_ancestors(os.getpid()))
    return [pid for pid in _pids() if pid not in spared and mark in _environment(pid)]


def mark_of(pid: int) -> str:
    """Return the id of the job that a process belongs to, or an empty string."""
    for entry in _environment(pid):
        name, _, value = entry.partition(b"=")
        if name == MARKER.encode():
            return value.decode()
    return ""


def kill_marked(job: str, patience: float = 3.0) -> None:
    """Kill what a dead supervisor left behind, and see that it is gone.

    Parameters
    ----------
    job : str
        The id of the job.
    patience : float
        Seconds to go on looking; a process can start another one while it is killed.
    """
    deadline = time.monotonic() + patience
    while left := marked(job):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Return the living processes below this one."""
    children: dict[int, list[int]] = {}
    for other in _pids():
        fields = _stat(other)
        if fields is not None and fields[_STATE] not in ("Z", "X"):
            children.setdefault(int(fields[_PARENT]), []).append(other)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends. For the moment between fork and exec."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 0:
        yield pid
        fields = _stat(pid)
        pid = int(fields[_PARENT]) if fields else 0


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()  # the name, in parentheses, may hold anything


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it is gone, or another user's
        return []
