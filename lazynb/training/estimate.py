"""What a run will take, before it starts: memory and time, good to a factor of two, and the batch size that fits."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazynb.engines.machine import available_memory, cores
from lazynb.hub.gguf import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynb.hub import Model
    from lazynb.training.data import Dataset

CHARACTERS = 3.0
"""Of text in a token, over many languages."""
TEMPLATE = 12
"""Tokens that a chat template adds to a message pair."""
CORE = 4e10
"""Floating-point operations that one core does in a second in training."""
GPU = 4e13
"""The same for a GPU of today, at the efficiency that fine-tuning reaches."""
START = 20.0
"""Seconds for importing the trainer, loading the weights and merging."""
ACTIVATIONS = 40
"""Bytes that training keeps for each token, layer and unit of width, with the logits beside them."""
BATCHES = (8, 4, 2, 1)
SMALL = 64
"""Rows up to which no gradients are accumulated: there are few steps as it is."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    steps: int
    batch: int
    """Rows at once."""
    accumulation: int
    cutoff: int
    """Tokens after which a row is cut."""
    memory: int
    """Bytes."""
    seconds: float
    gpu: bool
    bf16: bool

    def __str__(self) -> str:
        minutes = self.seconds / 60
        time = f"{minutes:.0f} min" if minutes >= 1 else f"{self.seconds:.0f} s"
        where = "on the GPU" if self.gpu else "on the CPU"
        return f"about {time} {where}, {self.memory / 1e9:.1f} GB of memory, {self.steps} steps"


def estimate(model: Model, dataset: Dataset, options: Mapping[str, Any]) -> Estimate:
    """Estimate a run from the size of the weights, the data and the machine."""
    width, layers, vocabulary, context = _shape(model)
    parameters = vocabulary * width + layers * 12 * width * width
    gpu = _gpu()
    longest = max(_tokens(row) for row in dataset.rows[:1000])
    cutoff = int(options.get("cutoff_len") or min(context, 2048, _round(longest * 1.5)))
    full = options.get("finetuning_type", "lora") != "lora"
    # Full training keeps gradients and two moments in full precision; LoRA the frozen weights alone.
    fixed = parameters * (16 if full else 2 if gpu else 4)
    per_row = min(cutoff, longest) * (layers * width * ACTIVATIONS + vocabulary * 8)
    room = 0.7 * _free(gpu=gpu) - fixed
    fitting = next((batch for batch in BATCHES if batch * per_row < room), 1)
    batch = int(options.get("per_device_train_batch_size") or min(fitting, 4 if not gpu else 8))
    rows = min(len(dataset), int(options.get("max_samples") or len(dataset)))
    held_out = float(options.get("val_size") or 0)
    rows -= int(rows * held_out if held_out < 1 else held_out)
    accumulation = int(
        options.get("gradient_accumulation_steps") or (1 if rows <= SMALL else max(1, 8 // batch))
    )
    epochs = float(options.get("num_train_epochs") or 3)
    steps = math.ceil(rows / (batch * accumulation)) * epochs
    if int(options.get("max_steps") or 0) > 0:
        steps = int(options["max_steps"])
    tokens = (
        steps
        * batch
        * accumulation
        * min(cutoff, dataset.characters / len(dataset) / CHARACTERS + TEMPLATE)
    )
    work = (6 if full else 4) * parameters * tokens  # frozen weights need no gradients of their own
    seconds = START + work / (GPU if gpu else CORE * cores())
    memory = int(fixed + batch * per_row)
    return Estimate(max(1, int(steps)), batch, accumulation, cutoff, memory, seconds, gpu, bf16=gpu)


def _tokens(row: dict[str, Any]) -> int:
    return int(len(json.dumps(row, ensure_ascii=False)) / CHARACTERS) + TEMPLATE


def _round(tokens: float) -> int:
    return max(256, 64 * math.ceil(tokens / 64))


def _shape(model: Model) -> tuple[int, int, int, int]:
    """Return width, layers, vocabulary and context; those of a model of one billion when it is not here yet."""
    if not model.present:
        return 2048, 16, 64_000, 4096
    if model.format == "gguf":
        facts = metadata(Path(model.path))
        words = facts.get("vocab_size") or 64_000
        return tuple(  # type: ignore[return-value]
            int(facts.get(key, default))
            for key, default in (
                ("embedding_length", 2048),
                ("block_count", 16),
                ("", words),
                ("context_length", 4096),
            )
        )
    try:
        facts = json.loads((Path(model.path) / "config.json").read_bytes())
    except (OSError, ValueError):
        facts = {}
    facts = facts.get("text_config", facts)
    return (
        int(facts.get("hidden_size", 2048)),
        int(facts.get("num_hidden_layers", 16)),
        int(facts.get("vocab_size", 64_000)),
        int(facts.get("max_position_embeddings", 4096)),
    )


def _gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def _free(*, gpu: bool) -> float:
    return 16e9 if gpu else available_memory()
