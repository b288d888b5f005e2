"""`%lazyllm pull | models | rm`: models on this machine, and those that could be."""

from __future__ import annotations

import secrets
import sys
import time
from typing import TYPE_CHECKING

from lazynb.errors import LazynbError
from lazynb.hub import catalogue, resolve
from lazynb.hub.store import remove, stored
from lazynb.notebook.arguments import Parser
from lazynb.notebook.tables import Table

if TYPE_CHECKING:
    from lazynb.notebook.magics import LazyMagics


def pull(_: LazyMagics, line: str) -> None:
    """Download a model: pull MODEL [--source modelscope|huggingface] [--format gguf|safetensors] [--wait]."""
    from lazynb.jobs import manager
    from lazynb.jobs.spec import JobSpec
    from lazynb.notebook.progress import show_job

    parser = Parser("%lazyllm pull")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--source", choices=("modelscope", "huggingface"), default="")
    parser.add_argument("--format", choices=("gguf", "safetensors"))
    parser.add_argument("--wait", action="store_true")
    arguments = parser.parse(line)
    options = {"source": arguments.source, "prefer": arguments.format}
    model = resolve(arguments.model, **options)
    if model.present:
        sys.stdout.write(f"{model.name} is on this machine: {model.path}\n")
        return
    name = f"pull-{model.name}"
    job = manager().find(name)
    if job is None or not job.live:
        spec = JobSpec(
            id=secrets.token_hex(4),
            name=name,
            kind="download",
            model=model.name,
            options=options,
            created=time.time(),
            prepare=[sys.executable, "-m", "lazynb.engines.prepare"],
        )
        job = manager().submit(spec)
    show_job(job, block=arguments.wait)


def models(_: LazyMagics, line: str) -> ModelTable:
    """List the models on this machine, and those that have a name here: models [PART OF A NAME]."""
    parser = Parser("%lazyllm models")
    parser.add_argument("part", metavar="PART", nargs="?", default="")
    part = parser.parse(line).part.casefold()
    here = [model for model in stored() if part in model.name.casefold()]
    names = {model.name for model in here}
    rows: list[tuple[str, ...]] = [
        (
            model.name,
            model.type or "",
            model.format or "not whole",
            size(model.bytes),
            "here" if model.cached else "yours",
            model.origin or model.folder,
        )
        for model in here
    ]
    for entry in sorted(catalogue.entries().values(), key=lambda entry: entry.name.casefold()):
        if entry.name not in names and part in entry.name.casefold():
            where = ["package"] * bool(entry.package) + list(entry.hub_ids)
            rows.append((entry.name, entry.type, "", "", "to pull", ", ".join(where)))
    return ModelTable(rows)


def rm(_: LazyMagics, line: str) -> None:
    """Remove a model that was downloaded: rm MODEL."""
    from lazynb.jobs import manager

    parser = Parser("%lazyllm rm")
    parser.add_argument("model", metavar="MODEL")
    name = parser.parse(line).model
    for job in manager().jobs():
        if job.live and job.spec.model.casefold() == name.casefold():
            raise LazynbError(f"{name} is in use", hint=f"First: %lazyllm stop {job.name}")
    sys.stdout.write(f"{name} · removed, {size(remove(name))} free\n")


def size(count: float) -> str:
    """Return a number of bytes in its largest unit."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


class ModelTable(Table):
    """Models."""

    header = ("model", "type", "form", "size", "where", "from")
    numbers = frozenset({"size"})
    empty = "There is no such model. %lazyllm models lists all; a hub's are pulled by owner/name."

    def __init__(self, rows: list[tuple[str, ...]]) -> None:
        super().__init__(rows, [""] * len(rows))
