"""Find out what to run for a job, downloading the weights on the way.

    python -m lazynb.engines.prepare FOLDER

The supervisor runs this while a job is in the phase 'downloading'. It reads `spec.json`, writes
`command.json` (what to run) and prints `@progress` lines. When it fails, its last line is `@failed
{"cause": …, "hint": …}`.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lazynb import hub
from lazynb.engines import memory
from lazynb.engines.choose import choose
from lazynb.engines.registry import get
from lazynb.errors import LazynbError
from lazynb.jobs import process
from lazynb.jobs.spec import Command, JobSpec

if TYPE_CHECKING:
    from collections.abc import Callable

AUTO = ("", "auto")


def report(prepare: Callable[[Path], None], folder: Path) -> int:
    """Prepare a job, or tell the supervisor why not; return the exit status."""
    try:
        prepare(folder)
    except LazynbError as error:
        failure = msgspec.json.encode({"cause": error.message, "hint": error.hint}).decode()
        print(f"@failed {failure}", flush=True)  # noqa: T201
        return 1
    return 0


def prepare(folder: Path) -> None:
    """Bring the weights of a job's model and write its command.

    Raises
    ------
    LazynbError
        With the cause, and what to do.
    """
    spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=JobSpec)
    engine = None if spec.engine in AUTO else get(spec.engine)
    kind = msgspec.convert(spec.type, hub.ModelType) if spec.type else None
    if spec.kind == "download":
        hub.fetch(hub.resolve(spec.model, type=kind, **spec.options))
        return
    model = hub.resolve(spec.model, prefer=engine.formats[0] if engine else None, type=kind)
    if engine is None:
        choose(model)  # fails before the download where nothing here could serve it
    model = hub.fetch(model)
    if engine is None or (kind is None and model.type not in engine.types):
        engine = choose(model)[0]  # the checkpoint tells its type better than a hub's id
    with memory.turn():
        command = memory.launch(
            model,
            engine,
            spec.options,
            spec.name,
            owner=spec.owner or process.myself(),
            say=partial(print, flush=True),
        )
        write_command(folder, msgspec.structs.replace(command, engine=engine.name))


def write_command(folder: Path, command: Command) -> None:
    """Write what the supervisor will run, at once or not at all."""
    fresh = folder / "command.json.new"
    fresh.touch(mode=0o600)
    fresh.write_bytes(msgspec.json.encode(command))
    fresh.replace(folder / "command.json")


if __name__ == "__main__":
    sys.exit(report(prepare, Path(sys.argv[1])))
