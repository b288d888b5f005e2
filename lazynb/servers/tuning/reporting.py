"""What the tuning programs tell the supervisor, and what they write for whoever looks at the run."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOG = Path("output/trainer_log.jsonl")


def progress(text: str, done: float | None = None, total: float | None = None) -> None:
    """Tell what is being done, on a line of its own: progress bars end without one."""
    print("\n@progress " + json.dumps({"text": text, "done": done, "total": total}), flush=True)  # noqa: T201


def fail(cause: str, hint: str) -> None:
    """Tell why this run ends, and end it."""
    print("\n@failed " + json.dumps({"cause": cause, "hint": hint}), flush=True)  # noqa: T201
    os._exit(1)


def follower(note: Callable[[dict[str, Any]], None] | None = None) -> Any:
    """Return a callback of transformers' Trainer: progress, a wish to stop, a loss that is no number.

    Parameters
    ----------
    note : callable, optional
        Gets each entry in the form of LLaMA-Factory's own log, for trainers that keep none.
    """
    from transformers import TrainerCallback

    began = time.time()

    class Follower(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, state
            if Path("stop").exists():
                control.should_training_stop = True
                control.should_save = True

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
        ) -> None:
            del args, control
            logs = logs or {}
            loss = logs.get("loss")
            if loss is not None and not math.isfinite(float(loss)):
                fail(
                    f"the loss is {loss} at step {state.global_step}",
                    "Start it anew with a smaller learning_rate: to resume would repeat it.",
                )
            words = f"step {state.global_step} of {state.max_steps}"
            words += f", loss {float(loss):.3f}" if loss is not None else ""
            progress(words, state.global_step, state.max_steps)
            if note is not None:
                note(_entry(logs, state, time.time() - began))

    return Follower()


def _entry(logs: dict[str, Any], state: Any, elapsed: float) -> dict[str, Any]:
    done, total = state.global_step, max(1, state.max_steps)
    names = {"loss": "loss", "learning_rate": "lr", "epoch": "epoch", "eval_loss": "eval_loss"}
    entry = {short: float(logs[name]) for name, short in names.items() if name in logs}
    left = elapsed / max(1, done) * (total - done)
    return {
        "current_steps": done,
        "total_steps": total,
        **entry,
        "percentage": round(100 * done / total, 2),
        "elapsed_time": _clock(elapsed),
        "remaining_time": _clock(left),
    }


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def write_entry(entry: dict[str, Any]) -> None:
    """Add an entry to the run's log."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def final_metrics() -> dict[str, float]:
    """Return the last loss of each kind, and that of the base model on the held-out rows."""
    found: dict[str, float] = {}
    for entry in _entries():
        if entry.get("current_steps") == 0 and "eval_loss" in entry:
            found["base_eval_loss"] = entry["eval_loss"]
        found |= {
            key: value
            for key, value in entry.items()
            if key in ("loss", "current_steps") or key.startswith("eval_")
        }
    return found


def _entries() -> Iterator[dict[str, Any]]:
    if LOG.exists():
        with LOG.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())


def drop_torn_checkpoints() -> None:
    """Remove the checkpoints that a killed run was just writing: their state is written last."""
    for checkpoint in LOG.parent.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / "trainer_state.json").read_bytes())
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)


def finish(version: dict[str, Any]) -> None:
    """Write the manifest, which makes the run a finished one."""
    fresh = Path("version.json.new")
    fresh.write_text(json.dumps(version), encoding="utf-8")
    fresh.rename("version.json")
