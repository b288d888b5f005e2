"""What is wrong with this machine for running engines, and what could be mended of it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from lazynb.config import config
from lazynb.engines.environment import RECIPES, Environment, broken, mend
from lazynb.engines.machine import available_memory, cores, nvidia

if TYPE_CHECKING:
    from collections.abc import Iterator

LITTLE = 5_000_000_000  # bytes of disk that an environment and a model soon take
OLD_DRIVER = 525  # the first driver of CUDA 12


def doctor() -> Iterator[str]:
    """Examine the machine and the environments, mend what can be mended, and say it line by line."""
    yield from _machine()
    for name, recipe in RECIPES.items():
        place = Environment(name)
        serves = ", ".join(recipe.engines)
        if place.state == "missing":
            yield f"{name}: not installed ({serves})"
            continue
        if place.state != "installed":
            yield f"{name}: {place.state}. Mend it: %lazyllm install {recipe.engines[0]}"
        else:
            yield f"{name}: installed ({serves})"
        if place.usable:
            yield from mend(place)
            for module in broken(place):
                yield f"{name}: {module} cannot be imported. Delete {place.folder} and install it again."


def _machine() -> Iterator[str]:
    gpus = nvidia()
    yield f"machine: {cores()} cores, {available_memory() / 1e9:.1f} GB of memory free, {gpus or 'no'} NVIDIA GPU"
    if gpus and (old := _old_driver()):
        yield f"driver {old} is too old for today's CUDA builds: update it to {OLD_DRIVER} or newer"
    root = config.home_dir
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free
    if free < LITTLE:
        yield f"disk: only {free / 1e9:.1f} GB free in {root}. Set LAZYLLM_HOME to a folder on another disk."
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        yield "compiler: none. torch.compile needs one (apt install gcc); engines run without it, some slower."


def _old_driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    major = said[0].partition(".")[0] if said else ""
    return said[0] if major.isdigit() and int(major) < OLD_DRIVER else ""
