"""One fine-tuning run with LLaMA-Factory: base weights in, servable weights out.

    python sft.py PLAN

Runs in the trainer's environment, by path. It unpacks a GGUF base, trains, merges the adapter, packs the result for
llama.cpp where the base came from there, and writes `version.json` last: a run without it is not finished. Training
goes on from the last checkpoint where there is one. Progress and failures are told as the supervisor reads them.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import weights

if TYPE_CHECKING:
    from collections.abc import Iterator

MERGED = ("lora", "oft")
"""Ways of fine-tuning that leave an adapter."""


def main() -> None:
    """Carry out the plan."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[1]).parent
    os.chdir(folder)
    base = Path(plan["base"])
    if plan["unpacked"]:
        unpacked = Path(plan["unpacked"])
        if not unpacked.is_dir():
            progress("unpacking the base model's weights")
            weights.unpack(base, unpacked)
        original, base = base, unpacked
    progress("starting LLaMA-Factory")
    began = time.time()
    config = {**plan["train"], "model_name_or_path": str(base)}
    train(config, folder)
    result = {**plan["version"], "seconds": time.time() - began, "metrics": metrics(folder)}
    adapter = config["finetuning_type"] in MERGED
    if adapter:
        progress("merging the adapter")
        merge(config)
        result["adapter"] = "output"
    result["weights"] = "merged" if adapter else "output"
    if plan["unpacked"]:
        progress("packing the weights for llama.cpp")
        weights.pack(Path(result["weights"]), original, Path("model.gguf"))
        result["weights"] = "model.gguf"
    fresh = Path("version.json.new")
    fresh.write_text(json.dumps(result), encoding="utf-8")
    fresh.rename("version.json")


def train(config: dict[str, Any], folder: Path) -> None:
    """Train, from the last checkpoint on where there is one."""
    from llamafactory.train.tuner import run_exp

    Path("stop").unlink(missing_ok=True)
    run_exp(config, callbacks=[follower(folder)])


def follower(folder: Path) -> Any:
    """Return what watches the training from within: progress, a wish to stop, a loss that is no number."""
    from transformers import TrainerCallback

    class Follower(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if (folder / "stop").exists():
                control.should_training_stop = True
                control.should_save = True

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
        ) -> None:
            del args, control
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(float(loss)):
                fail(
                    f"the loss is {loss} at step {state.global_step}",
                    "Use a smaller learning_rate; the last checkpoint is kept.",
                )
            words = f"step {state.global_step} of {state.max_steps}"
            words += f", loss {float(loss):.3f}" if loss is not None else ""
            progress(words, state.global_step, state.max_steps)

    return Follower()


def merge(config: dict[str, Any]) -> None:
    """Write the base weights with the adapter worked into them."""
    from llamafactory.train.tuner import export_model

    kept = ("model_name_or_path", "finetuning_type", "template", "trust_remote_code")
    export_model(
        {
            **{key: config[key] for key in kept if key in config},
            "adapter_name_or_path": "output",
            "export_dir": "merged",
            "export_size": 5,
            "export_device": "cpu",
        }
    )


def metrics(folder: Path) -> dict[str, float]:
    """Return the last loss of each kind."""
    found: dict[str, float] = {}
    for entry in log(folder):
        found |= {
            key: value
            for key, value in entry.items()
            if key == "loss" or key.startswith("eval_") or key == "current_steps"
        }
    return found


def log(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what LLaMA-Factory logged."""
    path = folder / "output" / "trainer_log.jsonl"
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())


def progress(text: str, done: float | None = None, total: float | None = None) -> None:
    """Tell the supervisor what is being done, on a line of its own: progress bars end without one."""
    print("\n@progress " + json.dumps({"text": text, "done": done, "total": total}), flush=True)  # noqa: T201


def fail(cause: str, hint: str) -> None:
    """Tell the supervisor why this run ends, and end it."""
    print("\n@failed " + json.dumps({"cause": cause, "hint": hint}), flush=True)  # noqa: T201
    os._exit(1)


if __name__ == "__main__":
    main()
