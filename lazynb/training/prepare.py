"""Bring the base weights of a run and write its command: `python -m lazynb.training.prepare FOLDER`.

The supervisor runs this, as it runs `lazynb.engines.prepare` for a service.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from lazynb import hub
from lazynb.engines.interpreter import interpreter
from lazynb.engines.prepare import report, write_command
from lazynb.jobs.spec import JobSpec
from lazynb.training.trainer import get


def prepare(folder: Path) -> None:
    """Fetch the base model, and write what to run."""
    spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=JobSpec)
    trainer = get(spec.engine)
    plan = json.loads(Path(spec.options["folder"], "plan.json").read_text(encoding="utf-8"))
    form: hub.Format = "gguf" if plan.get("unpacked") else "safetensors"
    model = hub.fetch(hub.resolve(spec.model, prefer=form))
    write_command(folder, trainer.command(model, spec.options, interpreter(trainer), spec.name))


if __name__ == "__main__":
    sys.exit(report(prepare, Path(sys.argv[1])))
