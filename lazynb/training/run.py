"""A fine-tuning run: a background job, and the folder of what it learns.

The run's folder outlives the job's: with its checkpoints a run that was killed goes on, in this kernel or another.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from lazynb.config import config
from lazynb.errors import JobError, LazynbError, OptionError
from lazynb.hub import resolve
from lazynb.jobs import manager
from lazynb.jobs.spec import JobSpec
from lazynb.training.data import read
from lazynb.training.target import MANIFEST, Target, Version
from lazynb.training.trainer import choose, get

if TYPE_CHECKING:
    from lazynb.hub import Model, ModelType
    from lazynb.jobs import Job
    from lazynb.training.data import Dataset
    from lazynb.training.previews import Preview
    from lazynb.training.trainer import Trainer

PLAN = "plan.json"
WORDS = {"ready": "training", "stopped": "stopped"}


class Run:
    """A fine-tuning run. Made by `TrainableModule.update`, `%lazyllm finetune` and `lazynb.runs`.

    Parameters
    ----------
    root : Path
        Its folder, under the target's.
    job : Job, optional
        The job that works on it, or did last.
    """

    def __init__(self, root: Path, job: Job | None = None) -> None:
        self.root = root
        self.id = root.name
        self.name = root.parent.name
        self.job = job

    @property
    def folder(self) -> Path:
        """Where the trainer writes: its log of losses and its checkpoints."""
        return self.root / "output"

    @property
    def plan(self) -> dict[str, Any]:
        """What was asked for, with everything that was filled in."""
        try:
            plan: dict[str, Any] = json.loads((self.root / PLAN).read_bytes())
        except (OSError, ValueError) as error:
            raise LazynbError(f"The run {self.id} has no plan any more: {error}") from None
        return plan

    @property
    def status(self) -> str:
        """'queued', 'downloading', 'loading', 'training', 'finished', 'stopped' or 'failed'."""
        if (self.root / MANIFEST).exists() and not (self.job and self.job.live):
            return "finished"
        return WORDS.get(self.job.state.phase, self.job.state.phase) if self.job else "stopped"

    @property
    def version(self) -> Version | None:
        """What it brought, once it is finished."""
        versions = Target(self.root.parent).versions()
        return next((version for version in versions if version.id == self.id), None)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the trainer logged: a dict for each logging step."""
        from lazynb.training.metrics import rows

        return rows(self.folder / "trainer_log.jsonl")

    @property
    def metrics(self) -> Any:
        """What the trainer logged, as a pandas DataFrame indexed by step."""
        try:
            import pandas as pd
        except ImportError:
            raise LazynbError(
                "A DataFrame takes pandas", hint="%pip install pandas, or use run.rows."
            ) from None
        frame = pd.DataFrame(self.rows)
        return frame.set_index("current_steps") if len(frame) else frame

    @property
    def log(self) -> str:
        """The last lines of the trainer's output."""
        return "\n".join(self.job.tail(50)) if self.job else ""

    def log_path(self) -> str:
        """Return the path of the trainer's output."""
        if self.job is None:
            raise LazynbError(f"The run {self.id} has no log any more")
        return str(self.job.log_path)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it has ended; an interrupt ends the waiting, not the run.

        Raises
        ------
        JobError
            It failed or was stopped: the cause and a hint.
        """
        if self.job is not None and self.status != "finished":
            self.job.wait(timeout, ended=True)
        if self.status != "finished":
            raise JobError(
                f"The run {self.id} was stopped before it was finished",
                hint="run.resume() goes on from its last checkpoint.",
                job=self.name,
            )
        return self

    def stop(self, *, save: bool = True) -> None:
        """End it early.

        Parameters
        ----------
        save : bool
            What was learned so far is merged and can be served; the run is then finished. False ends it at
            once; the last checkpoint is kept.
        """
        if self.job is None or not self.job.live:
            return
        if save and self.job.state.phase == "ready":
            (self.root / "stop").touch()
        else:
            self.job.stop()

    def resume(self) -> Self:
        """Go on from the last checkpoint, or from the start where there is none. A finished run stays as it is."""
        if self.status in {"stopped", "failed"}:
            plan = self.plan
            (self.root / "stop").unlink(missing_ok=True)
            self.job = _submit(self.root, plan["version"]["base"], plan["version"]["method"])
        return self

    def __repr__(self) -> str:
        return f"Run({self.name!r}, id={self.id!r}, status={self.status!r})"


def start(
    base: str,
    data: Any,
    *,
    target: str = "",
    method: str = "auto",
    options: dict[str, Any] | None = None,
    type: ModelType | None = None,  # noqa: A002
    download: bool = True,
) -> Run:
    """Check everything, then train in the background. Returns at once.

    Parameters
    ----------
    base : str
        The model to start from.
    data : path or rows
        What `lazynb.training.read` takes.
    target : str
        Where the weights go; by default `<model>-tuned`.
    method : str
        A trainer's name; 'auto' chooses by the type of the model.
    options : dict
        The trainer's own options.
    type : str, optional
        What the model is trained for: an embedding model can become a reranker.
    download : bool
        Whether weights that are not on this machine are fetched.

    Raises
    ------
    LazynbError
        Before anything is started: wrong data, unknown options, no trainer, no model.
    """
    model, trainer, dataset, checked = _checked(
        base, data, method=method, options=options, type=type, download=download
    )
    root = Target(target or f"{model.name}-tuned").new_run()
    plan = trainer.plan(model, dataset, checked, root)
    plan["version"] = msgspec.to_builtins(
        Version(
            id=root.name,
            base=base,
            method=trainer.name,
            options=dict(checked),
            rows=len(dataset),
            created=time.time(),
        )
    )
    (root / PLAN).write_text(json.dumps(plan, indent=1, ensure_ascii=False), encoding="utf-8")
    print(f"{trainer.name}: {plan['estimate']}")  # noqa: T201
    return Run(root, _submit(root, base, trainer.name))


def preview(
    base: str,
    data: Any,
    *,
    method: str = "auto",
    options: dict[str, Any] | None = None,
    type: ModelType | None = None,  # noqa: A002
    count: int = 3,
) -> Preview:
    """Show what the model will see of training data; nothing is trained.

    Parameters
    ----------
    base, data, method, options, type
        As for `start`.
    count : int
        Rows that are shown.

    Raises
    ------
    LazynbError
        What `start` would complain of, or a model that is not on this machine.
    """
    from lazynb.training.previews import make

    model, trainer, dataset, checked = _checked(
        base, data, method=method, options=options, type=type, download=True
    )
    return make(trainer, model, dataset, checked, count)


def _checked(
    base: str,
    data: Any,
    *,
    method: str,
    options: dict[str, Any] | None,
    type: ModelType | None,  # noqa: A002
    download: bool,
) -> tuple[Model, Trainer, Dataset, dict[str, Any]]:
    """Find the model and its trainer, and check the data and the options."""
    from lazynb.engines import interpreter

    dataset = read(data)
    model = resolve(base, prefer="safetensors", type=type, download=download)
    if not model.present:  # a package needs no hub, and its weights can be unpacked
        packed = resolve(base, type=type, download=download)
        model = packed if packed.source == "package" else model
    trainer = choose(model.type) if method == "auto" else get(method)
    if model.type not in trainer.types:
        raise OptionError(
            f"{trainer.name} does not train {model.name}, a model of type {model.type!r}",
            hint=f"It trains {' and '.join(trainer.types)} models; finetune.auto chooses.",
        )
    checked = trainer.check(options or {})
    if dataset.shape not in trainer.shapes:
        raise OptionError(
            f"{trainer.name} cannot learn from rows of the form {dataset.shape!r} ({dataset.origin})",
            hint=f"It takes {', '.join(trainer.shapes)}.",
        )
    interpreter(trainer)
    return model, trainer, dataset, checked


def runs(target: str = "") -> list[Run]:
    """Return the runs that are there, the latest last: those under way, and those whose folder exists.

    Parameters
    ----------
    target : str
        Those of one target; by default of all under `config.train_target_root`.
    """
    jobs = {
        job.spec.options.get("folder", ""): job
        for job in reversed(manager().jobs())
        if job.spec.kind == "training"
    }
    root = Path(config.train_target_root).expanduser().absolute()
    places = [Target(target).path] if target else list(root.glob("*/"))
    folders = {plan.parent for place in places for plan in place.glob(f"*/{PLAN}")}
    if not target:
        folders |= {Path(folder) for folder in jobs if (Path(folder) / PLAN).exists()}
    found = [Run(folder, jobs.get(str(folder))) for folder in folders]
    return sorted(found, key=lambda run: run.id)


def find(name: str) -> Run:
    """Return a run by its id, or the latest of a target.

    Raises
    ------
    OptionError
        There is none; the ones there are are named.
    """
    known = runs()
    for run in reversed(known):
        if name in (run.id, run.name):
            return run
    have = ", ".join(run.id for run in known[-5:]) or "none"
    raise OptionError(f"There is no run {name!r}", hint=f"There are: {have}.")


def _submit(root: Path, base: str, method: str) -> Job:
    return manager().submit(
        JobSpec(
            id=secrets.token_hex(4),
            name=f"{root.parent.name}/{root.name}",
            kind="training",
            model=base,
            engine=method,
            options={"folder": str(root)},
            created=time.time(),
            prepare=[sys.executable, "-m", "lazynb.training.prepare"],
        )
    )
