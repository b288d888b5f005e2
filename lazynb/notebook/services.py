"""The table of what runs: what each service takes and does at this moment.

What it does is asked from all of them at once, and from this process's own client. One that hangs does not keep the
table waiting: it has no numbers then.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lazynb.notebook.tables import Table, ago, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.jobs import Job
    from lazynb.jobs.load import Load

PATIENCE = 0.2
"""Seconds that services have to answer."""
SPAN = 0.15
"""Seconds between the two looks that a rate is taken from."""
GPU_MEMORY = "GPU memory (MB)"


@dataclass(frozen=True)
class Standing:
    """What a service does."""

    running: int | None = None
    """Requests under way; None when nobody knows."""
    rate: float = 0.0
    """Tokens per second."""
    gpu_memory: int = 0
    """Bytes."""


class JobTable(Table):
    """What runs."""

    header: tuple[str, ...] = (
        "name",
        "status",
        "engine",
        "device",
        "memory (MB)",
        GPU_MEMORY,
        "requests",
        "tokens/s",
        "idle",
        "address",
        "up",
        "owner",
    )
    numbers = frozenset({"memory (MB)", GPU_MEMORY, "requests", "tokens/s", "idle", "up"})
    empty = "Nothing is running. Start a model with %lazyllm deploy MODEL."
    relative = "up"

    def __init__(self, jobs: Sequence[Job]) -> None:
        stand = standings(jobs)
        rows = [_row(job, stand[job.id]) for job in jobs]
        column = self.header.index(GPU_MEMORY)
        if not any(row[column] for row in rows):
            self.header = tuple(name for name in self.header if name != GPU_MEMORY)
            rows = [(*row[:column], *row[column + 1 :]) for row in rows]
        super().__init__(rows, [moment(job.spec.created) for job in jobs])


def standings(jobs: Sequence[Job]) -> dict[str, Standing]:
    """Find out what jobs do; takes less than half a second, whatever they do.

    Returns
    -------
    dict of str to Standing
        By the ids of the jobs.
    """
    from lazynb.client import activity
    from lazynb.engines import machine
    from lazynb.jobs import load

    live = [job for job in jobs if job.live]
    on_gpus: dict[int, int] = {}
    asking = threading.Thread(
        target=lambda: on_gpus.update(machine.gpu_memory(PATIENCE + SPAN)), daemon=True
    )
    if machine.nvidia():
        asking.start()
    first = load.loads(live, PATIENCE)
    working = [job for job in live if job.id in first and first[job.id].running]
    second: dict[str, Load] = {}
    if working:
        time.sleep(SPAN)
        second = load.loads(working, SPAN / 2)
    if asking.ident is not None:
        asking.join(SPAN)
    found = {job.id: Standing() for job in jobs}
    for job in live:
        state = job.state
        own = activity.of(job.url) if state.port else activity.Activity()
        seen = second.get(job.id) or first.get(job.id)
        running = max(seen.running, own.running) if seen else own.running or None
        rate = own.rate if own.running else 0.0
        if not rate and job.id in second:
            rate = second[job.id].rate(first[job.id])
        if running:
            job.mark_used()
        found[job.id] = Standing(running, rate, sum(on_gpus.get(pid, 0) for pid in job.pids()))
    return found


def _row(job: Job, standing: Standing) -> tuple[str, ...]:
    state, command = job.state, job.command
    service = job.spec.kind == "service" and state.phase == "ready"
    gpus = ", ".join(map(str, command.gpus)) if command else ""
    owner = "this kernel" if job.owned else "another kernel"
    running = standing.running
    return (
        job.name,
        _status(job),
        state.engine,
        f"GPU {gpus}" if gpus else "CPU" if job.live else "",
        f"{job.memory() / 1e6:.0f}" if job.live else "",
        f"{standing.gpu_memory / 1e6:.0f}" if standing.gpu_memory else "",
        str(running) if service and running is not None else "",
        f"{standing.rate:.0f}" if running and standing.rate else "",
        ago(time.time() - job.last_used) if service and not running else "",
        f"127.0.0.1:{state.port}" if state.port and job.live else "",
        ago(job.uptime),
        "kept" if job.spec.keep else owner,
    )


def _status(job: Job) -> str:
    state = job.state
    if job.spec.kind == "training" and state.phase == "ready":
        return "training"
    return f"stopped: {state.cause}" if state.phase == "stopped" and state.cause else state.phase
