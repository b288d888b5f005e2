"""Managed environments: an engine's own Python, made and updated on request.

Engines whose pins agree share one. What is in it is a requirements file beside this module, pinned and tested; the
environment counts as installed once a stamp in it says which requirements it was made from, so one that was cut off
in the middle is never used, and the next attempt goes on with what is there. A lock makes two kernels that ask at
once share one installation.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from lazynb.config import config
from lazynb.engines.machine import nvidia
from lazynb.errors import LazynbError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from filelock import FileLock

    Report = Callable[[str], None]

REQUIREMENTS = Path(__file__).with_name("environments")
STAMP = "lazynb-requirements"
PAUSE = 5.0  # seconds between two lines of progress
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


@dataclass(frozen=True)
class Recipe:
    """What an environment is for.

    Parameters
    ----------
    engines : tuple of str
        The engines and trainers that run in it.
    bytes : int
        About what it takes on disk, without a GPU.
    cpu : bool
        Whether it works on a machine without a GPU.
    """

    engines: tuple[str, ...]
    bytes: int
    cpu: bool = True


RECIPES = {
    "llamacpp": Recipe(("llamacpp",), 120_000_000),
    "torch": Recipe(
        ("transformers", "embedding", "rerank", "llamafactory", "flagembedding"), 2_400_000_000
    ),
    "vllm": Recipe(("vllm",), 3_500_000_000),
    "lmdeploy": Recipe(("lmdeploy",), 8_000_000_000, cpu=False),
}
GPU_BYTES = 6_000_000_000
"""What the CUDA libraries add."""


@dataclass(frozen=True)
class Environment:
    """A managed environment, there or to be made."""

    name: str

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return config.envs_path / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def requirements(self) -> Path:
        """The pinned requirements for this machine: those without a GPU can differ."""
        without = REQUIREMENTS / f"{self.name}-cpu.txt"
        return without if without.exists() and not nvidia() else REQUIREMENTS / f"{self.name}.txt"

    @property
    def state(self) -> str:
        """'installed', 'outdated', 'incomplete' or 'missing'."""
        if not os.access(self.python, os.X_OK):
            return "incomplete" if self.folder.exists() else "missing"
        try:
            stamp = (self.folder / STAMP).read_text()
        except OSError:
            return "incomplete"
        return "installed" if stamp == _digest(self.requirements) else "outdated"

    @property
    def usable(self) -> bool:
        """Whether an engine can run in it: also with the pins of an older lazynb."""
        return self.state in ("installed", "outdated")


def names() -> list[str]:
    """Return the engines and trainers that can be installed."""
    return [engine for recipe in RECIPES.values() for engine in recipe.engines]


def environment(engine: str) -> Environment:
    """Return the environment of an engine, or the one of that name.

    Raises
    ------
    OptionError
        When lazynb has none for it.
    """
    wanted = engine.casefold()
    for name, recipe in RECIPES.items():
        if wanted == name or wanted in recipe.engines:
            return Environment(name)
    near = get_close_matches(wanted, names(), n=3) or names()
    raise OptionError(
        f"There is nothing to install for {engine!r}", hint=f"Did you mean {', '.join(near)}?"
    )


def install(engine: str, report: Report = print) -> Environment:
    """Make or update the environment of an engine; free when it is there.

    Parameters
    ----------
    engine : str
        An engine's or trainer's name.
    report : callable
        Gets lines that say what is being done.

    Raises
    ------
    LazynbError
        No GPU for an engine that needs one, no space, no network: with what to do.
    """
    place = environment(engine)
    if place.state == "installed":
        report(f"{engine} is installed in {place.folder}")
        return place
    if not RECIPES[place.name].cpu and not nvidia():
        message = f"{engine} needs an NVIDIA GPU, which this machine has not"
        raise LazynbError(
            message, hint="deploy.vllm, deploy.transformers and deploy.llamacpp do not."
        )
    lock = _lock(place)
    try:
        _acquire(lock, engine, report)
        if place.state != "installed":  # or another kernel has done it meanwhile
            _make(place, report)
            for line in mend(place):
                report(line)
            (place.folder / STAMP).write_text(_digest(place.requirements))
    except OSError as error:
        hint = "Set LAZYLLM_ENVS_DIR to a folder with space that you may write to."
        raise LazynbError(f"Cannot write {place.folder}: {error}", hint=hint) from error
    finally:
        lock.release()
    report(f"{engine} is installed in {place.folder}")
    return place


def mend(place: Environment) -> list[str]:
    """Take away what is broken and breaks its neighbours; return what was done, in words.

    A CUDA build of torchvision, torchaudio or torchcodec beside a CPU build of torch cannot be imported, and
    transformers, diffusers and FlagEmbedding fall over it. Whether it is so is seen by importing them.
    """
    done = []
    for module in ("torchvision", "torchcodec", "torchaudio"):
        where = _location(place, module)
        if where is None or _imports(place, module):
            continue
        if module == "torchaudio":
            for file in (where / "lib").glob("*.so"):
                file.unlink()
            done.append(
                f"{place.name}: removed torchaudio's compiled parts, which do not fit this torch"
            )
            if _imports(place, module):
                continue
        _pip(place, "uninstall", "--yes", module)
        done.append(f"{place.name}: uninstalled {module}, which does not fit this torch")
    return done


def broken(place: Environment) -> list[str]:
    """Return the neighbours of torch that are there and cannot be imported."""
    modules = ("torch", "torchvision", "torchcodec", "torchaudio")
    return [m for m in modules if _location(place, m) and not _imports(place, m)]


def _make(place: Environment, report: Report) -> None:
    recipe = RECIPES[place.name]
    needed = recipe.bytes + (GPU_BYTES if nvidia() and place.name != "llamacpp" else 0)
    place.folder.parent.mkdir(parents=True, exist_ok=True)
    there = _size(place.folder)
    free = shutil.disk_usage(place.folder.parent).free
    if free < needed - there:
        raise LazynbError(
            f"The environment {place.name} takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free "
            f"in {place.folder.parent}",
            hint="Make room, or set LAZYLLM_ENVS_DIR to a folder on another disk.",
        )
    (place.folder / STAMP).unlink(missing_ok=True)
    if not _works(place):
        report(f"making the environment {place.folder}")
        # A venv of a venv's Python would lean on that one; the base outlives it.
        base = getattr(sys, "_base_executable", sys.executable)
        made = subprocess.run(
            [base, "-m", "venv", "--clear", str(place.folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            hint = "On Debian and Ubuntu: apt install python3-venv"
            raise LazynbError(
                f"No environment could be made: {made.stderr.strip()[-300:]}", hint=hint
            )
    report(f"installing {place.name} (about {needed / 1e9:.1f} GB)")
    over = threading.Event()
    ticker = threading.Thread(target=_tick, args=(place, needed, report, over), daemon=True)
    ticker.start()
    try:
        failure = _pip(place, "install", "--upgrade", "--requirement", str(place.requirements))
    finally:
        over.set()
        ticker.join()
    if failure:
        raise _error(place, failure)


def _tick(place: Environment, needed: int, report: Report, over: threading.Event) -> None:
    """Say every few seconds how far it is: downloads come first, and the folder grows in the end."""
    begun = time.monotonic()
    while not over.wait(PAUSE):
        seconds = time.monotonic() - begun
        size = _size(place.folder)
        report(
            f"installing {place.name}: {size / 1e9:.1f} of about {needed / 1e9:.1f} GB on disk, {seconds:.0f} s"
        )


def _pip(place: Environment, *arguments: str) -> str:
    """Run pip in the environment; return what it complained of, or nothing."""
    with tempfile.TemporaryFile("w+") as said:
        command = [str(place.python), *PIP, arguments[0], "-qq", *arguments[1:]]
        with subprocess.Popen(command, stdout=said, stderr=said) as process:
            try:
                process.wait()
            except BaseException:
                process.terminate()
                raise
        said.seek(0)
        return (
            said.read().strip() or f"pip ended with {process.returncode}"
            if process.returncode
            else ""
        )


def _error(place: Environment, said: str) -> LazynbError:
    from lazynb.hub.pip import CAUSES

    last = "\n".join(said.splitlines()[-4:])
    for pattern, cause, _ in CAUSES:
        if re.search(pattern, said):
            hint = f"Run it again when that is mended: it goes on.\n{last}"
            return LazynbError(f"A part of the environment {place.name} {cause}", hint=hint)
    return LazynbError(f"pip could not install the environment {place.name}", hint=last)


def _location(place: Environment, module: str) -> Path | None:
    for folder in _site(place):
        if (folder / module).is_dir():
            return folder / module
    return None


def _site(place: Environment) -> Iterator[Path]:
    return place.folder.glob("lib/python3*/site-packages")


def _imports(place: Environment, module: str) -> bool:
    run = subprocess.run(
        [str(place.python), "-c", f"import {module}"], capture_output=True, check=False
    )
    return run.returncode == 0


def _works(place: Environment) -> bool:
    try:
        run = subprocess.run(
            [str(place.python), "-m", "pip", "--version"], capture_output=True, check=False
        )
    except OSError:
        return False
    return run.returncode == 0


def _size(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(root, file)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lock(place: Environment) -> FileLock:
    from filelock import FileLock

    place.folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(place.folder.with_name(f".{place.name}.lock"))


def _acquire(lock: FileLock, engine: str, report: Report) -> None:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"waiting for another process that installs {engine}")
        lock.acquire()
