"""One fine-tuning run with LLaMA-Factory: base weights in, servable weights out.

    python sft.py PLAN

Runs in the trainer's environment, by path. It unpacks a GGUF base, trains, merges the adapter, packs the result for
llama.cpp where the base came from there, and writes `version.json` last: a run without it is not finished. Training
goes on from the last checkpoint where there is one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import weights
from reporting import drop_torn_checkpoints, final_metrics, finish, follower, progress

ADAPTERS = ("lora", "oft")
"""Ways of fine-tuning that leave an adapter."""


def main() -> None:
    """Carry out the plan."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.chdir(Path(sys.argv[1]).parent)
    base = original = Path(plan["base"])
    if plan["unpacked"]:
        base = Path(plan["unpacked"])
        if not base.is_dir():
            progress("unpacking the base model's weights")
            weights.unpack(original, base)
    progress("starting LLaMA-Factory")
    began = time.time()
    config = {**plan["train"], "model_name_or_path": str(base)}
    train(config)
    result = {**plan["version"], "seconds": time.time() - began, "metrics": final_metrics()}
    result["weights"] = "output"
    if config["finetuning_type"] in ADAPTERS:
        progress("merging the adapter")
        merge(config)
        result |= {"adapter": "output", "weights": "merged"}
    if plan["unpacked"]:
        progress("packing the weights for llama.cpp")
        weights.pack(Path(result["weights"]), original, Path("model.gguf"))
        result |= {"full": result["weights"], "weights": "model.gguf"}
    finish(result)
    for checkpoint in Path("output").glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)  # there is nothing left to resume


def train(config: dict[str, Any]) -> None:
    """Train, from the last checkpoint on where there is one."""
    from llamafactory.train.tuner import run_exp

    drop_torn_checkpoints()
    run_exp(config, callbacks=[follower()])


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


if __name__ == "__main__":
    main()
