"""LLaMA-Factory: supervised fine-tuning, pre-training and preferences, with LoRA or of all weights.

Its options pass through under their own names; `llamafactory.json` lists those of the pinned version. What it leaves
open is chosen for the machine here. It reads the chat template from the checkpoint, so that training and inference see
the same text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lazynb.config import config
from lazynb.engines.base import Option
from lazynb.engines.machine import cores, spinning
from lazynb.errors import OptionError
from lazynb.jobs.spec import CauseRule, Command
from lazynb.training.estimate import Estimate, estimate
from lazynb.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynb.hub import Model
    from lazynb.training.data import Dataset

PROGRAM = Path(__file__).parents[1] / "servers" / "tuning" / "sft.py"
KINDS = {"bool": bool, "int": int, "float": float, "str": str, "any": Any}
OURS = ("model_name_or_path", "output_dir", "dataset", "dataset_dir", "do_train", "plot_loss")
"""Options that the run itself needs."""
CHECKPOINTS = 10
"""Checkpoints in a run; the last two are kept. A run that was killed goes on from one."""
POINTS = 200
"""Points of the loss curve that a run is logged with, at least, where it has so many steps."""
BLOCKS = 100
"""Characters for each token of a block below which plain text is trained on row by row."""
STAGES = {
    "messages": ("sft",),
    "preference": ("dpo", "rm"),
    "feedback": ("kto",),
    "text": ("pt",),
    "retrieval": (),
}
"""The stages that a form of data is for; the first one is the default."""
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}


def read_options(trainer: str, ours: tuple[str, ...]) -> dict[str, Option]:
    """Return a trainer's options as its pinned version has them, but for those that a run fills in itself."""
    listed = json.loads((Path(__file__).parent / f"{trainer}.json").read_text(encoding="utf-8"))
    return {
        name: Option(KINDS[kind] if isinstance(kind, str) else Literal[tuple(kind)], text)
        for name, (kind, text) in listed.items()
        if name not in ours
    }


CAUSES = [
    CauseRule(
        pattern=r"(CUDA out of memory|OutOfMemoryError|DefaultCPUAllocator: can't allocate memory)",
        cause="there is not enough memory for this run",
        hint="Use a smaller per_device_train_batch_size or cutoff_len; the last checkpoint is kept: run.resume() goes on.",
    ),
    CauseRule(
        pattern=r"Cannot find sufficient samples",
        cause="no row is left to learn from",
        hint="Use a smaller cutoff_len, or more data.",
    ),
    CauseRule(
        # torch's writer of checkpoints says only that its file is shorter than it should be
        pattern=r"No space left on device|enforce fail at inline_container.*unexpected pos|iostream error",
        cause="the disk is full",
        hint="Make room, then run.resume() goes on from the last checkpoint.",
    ),
]
REFUSED = CauseRule(
    pattern=r"ValueError: (?P<words>.+)",
    cause="LLaMA-Factory refused the run: {words}",
    hint="Check the options that you gave.",
)


def environment() -> dict[str, str]:
    """Return what keeps trainers from asking the network or reporting to a service."""
    return {
        "DISABLE_VERSION_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_DISABLED": "true",
        **spinning(),
    }


def command(model: Model, options: Mapping[str, Any], python: str, name: str) -> Command:
    """Say how to carry out the plan in a run's folder."""
    del model, name
    folder = Path(options["folder"])
    return Command(
        argv=[python, str(PROGRAM), str(folder / "plan.json")],
        env=environment(),
        cwd=str(folder),
        serves=False,
        causes=[*CAUSES, REFUSED],
    )


def plan(
    model: Model, dataset: Dataset, options: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Write the data of a run in LLaMA-Factory's form, and return what it is configured with.

    Raises
    ------
    OptionError
        For data that the stage cannot use.
    """
    stage = options.get("stage") or STAGES[dataset.shape][0]
    if stage not in STAGES[dataset.shape]:
        fitting = next(shape for shape, stages in STAGES.items() if stage in stages)
        raise OptionError(
            f"The stage {stage} takes rows of the form {fitting!r}, and these are {dataset.shape!r}"
        )
    _write_data(dataset, folder)
    guess = estimate(model, dataset, options)
    defaults = _defaults(guess, options)
    if stage == "pt" and dataset.characters < BLOCKS * guess.cutoff:
        defaults["packing"] = False  # LLaMA-Factory makes blocks of full length, and drops the rest
    return {
        "estimate": str(guess),
        "base": model.path,
        "unpacked": str(config.cache_dir / f"{Path(model.path).stem}-full")
        if model.format == "gguf"
        else "",
        "train": {
            **defaults,
            **options,
            "stage": stage,
            "do_train": True,
            "dataset": "train",
            "dataset_dir": "data",
            "output_dir": "output",
            "plot_loss": False,
        },
    }


def _write_data(dataset: Dataset, folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    with (data / "train.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in dataset.rows)
    columns = {key: key for key in dataset.rows[0] if key != "text"}
    if "label" in columns:
        columns["kto_tag"] = columns.pop("label")
    info: dict[str, Any] = {
        "file_name": "train.jsonl",
        "formatting": "sharegpt",
        "columns": columns,
    }
    if dataset.shape == "text":
        info |= {"formatting": "alpaca", "columns": {"prompt": "text"}}
    else:
        info["tags"] = TAGS
    if dataset.shape == "preference":
        info["ranking"] = True
    (data / "dataset_info.json").write_text(json.dumps({"train": info}), encoding="utf-8")


def _defaults(guess: Estimate, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what LLaMA-Factory leaves open, fitted to the model, the data and the machine."""
    filled: dict[str, Any] = {
        "finetuning_type": "lora",
        "lora_rank": 16,
        "lora_target": "all",
        "learning_rate": 1e-4 if options.get("finetuning_type", "lora") == "lora" else 1e-5,
        "num_train_epochs": 3,
        "per_device_train_batch_size": guess.batch,
        "gradient_accumulation_steps": guess.accumulation,
        "cutoff_len": guess.cutoff,
        "bf16": guess.bf16,
        "lr_scheduler_type": "cosine",
        "logging_steps": max(1, guess.steps // POINTS),
        "save_steps": max(1, guess.steps // CHECKPOINTS),
        "save_total_limit": 2,
        "report_to": "none",
        "logging_nan_inf_filter": False,  # a loss that is no number is told, not smoothed over
        "disable_tqdm": True,  # the run tells its progress itself
        "preprocessing_num_workers": min(8, cores()),
        "dataloader_pin_memory": guess.gpu,
        "seed": 42,
    }
    if options.get("val_size"):
        filled |= {
            "eval_strategy": "steps",
            "eval_on_start": True,  # the base model's loss on the held-out rows
            "eval_steps": max(1, guess.steps // CHECKPOINTS),
            "per_device_eval_batch_size": guess.batch,
        }
    if options.get("finetuning_type", "lora") == "full":
        filled = {key: value for key, value in filled.items() if not key.startswith("lora_")}
    return filled


trainer = Trainer(
    name="llamafactory",
    types=("chat", "vlm"),
    formats=("safetensors", "gguf"),
    package="llamafactory",
    requirement="llamafactory",
    options=read_options("llamafactory", OURS),
    aliases={"batch_size": "per_device_train_batch_size", "epochs": "num_train_epochs"},
    command=command,
    shapes=("messages", "preference", "feedback", "text"),
    plan=plan,
)
