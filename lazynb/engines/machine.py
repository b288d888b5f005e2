"""What this machine can give to an engine: processor cores, memory, GPUs. A container's limits count."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MIB = 1 << 20
HIDDEN = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that hide all GPUs."""


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as it stands."""

    index: int
    """Its number in the order of the bus, as `nvidia-smi` counts."""
    uuid: str
    name: str
    total: int
    """Bytes."""
    free: int


def cores() -> int:
    """Return the number of physical cores that this process may use.

    Two threads on one core slow llama.cpp down, and so do more threads than a container may run.
    """
    import psutil

    count = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if sys.platform == "linux":
        count = min(count, len(os.sched_getaffinity(0)))
    quota, _, period = _read("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count)


def available_memory() -> int:
    """Return the bytes that this process can still take."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = _read("memory.max"), _read("memory.current")
    if limit.isdigit() and used.isdigit():
        cached = next(
            (
                int(line.split()[1])
                for line in _read("memory.stat").splitlines()
                if line.startswith("inactive_file ")
            ),
            0,
        )
        free = min(free, int(limit) - int(used) + cached)
    return max(0, free)


def nvidia() -> int:
    """Return the number of NVIDIA GPUs that their driver lists; 0 without one, or where all are hidden."""
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("CUDA_VISIBLE_DEVICES", "all") in HIDDEN:
        return 0
    return _count(program)


def gpus() -> list[Gpu]:
    """Return the GPUs that a service can be given whole, with what is free on them now.

    Those that `CUDA_VISIBLE_DEVICES` hides are none, and neither are those that are cut into instances (MIG), which
    their user names there.
    """
    fields = "index,uuid,mig.mode.current,memory.total,memory.free,name"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    words = None if visible is None else [word.strip() for word in visible.split(",")]
    found = []
    for index, uuid, mig, total, free, name in _query(f"--query-gpu={fields}", 6):
        chosen = words is None or index in words or any(w and uuid.startswith(w) for w in words)
        if not chosen or mig == "Enabled":
            continue
        # Where processor and GPU share their memory, the driver does not say.
        space = int(total) * MIB if total.isdigit() else available_memory()
        rest = int(free) * MIB if free.isdigit() else available_memory()
        found.append(Gpu(int(index), uuid, name, space, rest))
    return found


def gpu_memory(timeout: float) -> dict[int, int]:
    """Return the bytes on GPUs that each process takes, by its id, as far as the driver tells in time."""
    found: dict[int, int] = {}
    for pid, used in _query("--query-compute-apps=pid,used_gpu_memory", 2, timeout):
        if pid.isdigit() and used.isdigit():
            found[int(pid)] = found.get(int(pid), 0) + int(used) * MIB
    return found


@cache
def _count(program: str) -> int:
    return sum(line.startswith("GPU ") for line in _output([program, "-L"], 20).splitlines())


def _query(what: str, width: int, timeout: float = 20) -> list[list[str]]:
    """Return the rows of a table of the driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    text = _output([program, what, "--format=csv,noheader,nounits"], timeout)
    rows = [
        [cell.strip() for cell in line.split(",", width - 1)] for line in text.splitlines() if line
    ]
    return [row for row in rows if len(row) == width]


def _output(argv: list[str], timeout: float) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _read(name: str) -> str:
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:
        return ""


def spinning() -> dict[str, str]:
    """Return how long torch's threads may wait for each other awake, for the environment of a program that uses torch.

    Two models that work at once on the same cores take them from each other while they wait: with the 300,000 rounds
    of libgomp's default, each of two training loops of a small model ran at a thirtieth of its speed on two cores.
    With 3,000, each ran at nearly half, and one alone as fast as before.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return {}
    return {"GOMP_SPINCOUNT": "3000"}
