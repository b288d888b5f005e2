"""What this machine can give to an engine: processor cores and memory. A container's limits count."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


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


@cache
def nvidia() -> int:
    """Return the number of NVIDIA GPUs that their driver lists; 0 without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _read(name: str) -> str:
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:
        return ""
