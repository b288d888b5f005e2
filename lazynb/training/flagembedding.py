"""FlagEmbedding: embedders and rerankers, from queries with texts that answer them and texts that do not.

Its options pass through under their own names (`flagembedding.json`); `val_size` and `max_samples`
mean what they mean for chat models. Queries that are held out tell recall, MRR and nDCG before and after.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazynb.engines.base import Option
from lazynb.errors import OptionError
from lazynb.jobs.spec import CauseRule, Command
from lazynb.training.estimate import estimate
from lazynb.training.llamafactory import CAUSES, CHECKPOINTS, POINTS, environment, read_options
from lazynb.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynb.hub import Model
    from lazynb.training.data import Dataset
    from lazynb.training.estimate import Estimate

PROGRAM = Path(__file__).parents[1] / "servers" / "tuning" / "retrieval.py"
OURS = ("model_name_or_path", "output_dir", "train_data", "model_type")
"""Options that the run itself needs."""
NEGATIVES = 7
"""Texts that do not answer a query, taken from other rows where a row names none."""
SEED = 42


def command(model: Model, options: Mapping[str, Any], python: str, name: str) -> Command:
    """Say how to carry out the plan in a run's folder."""
    del model, name
    folder = Path(options["folder"])
    return Command(
        argv=[python, str(PROGRAM), str(folder / "plan.json")],
        env=environment(),
        cwd=str(folder),
        serves=False,
        causes=[
            *CAUSES,
            CauseRule(
                pattern=r"ValueError: (?P<words>.+)", cause="FlagEmbedding refused the run: {words}"
            ),
        ],
    )


def plan(
    model: Model, dataset: Dataset, options: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Write the data of a run in FlagEmbedding's form, and return what it is configured with."""
    options = dict(options)
    rows = _with_negatives(dataset.rows)[: options.pop("max_samples", None)]
    share = options.pop("val_size", 0)
    held = int(len(rows) * share if share < 1 else share)
    if held:  # the trainer shuffles what it learns from itself
        random.Random(SEED).shuffle(rows)  # noqa: S311 - no secret
    if held >= len(rows):
        raise OptionError(f"val_size = {share:g} leaves nothing of {len(rows)} rows to learn from")
    data = folder / "data"
    data.mkdir()
    for name, part in (("held_out", rows[:held]), ("train", rows[held:])):
        with (data / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
    guess = estimate(model, dataset, {**options, "finetuning_type": "full"})
    return {
        "estimate": str(guess),
        "kind": model.type,
        "base": model.path,
        "train": {
            **_defaults(model, guess, len(rows) - held, options),
            **options,
            "train_data": ["data/train.jsonl"],
            "output_dir": "output",
        },
    }


def _with_negatives(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the rows that name no wrong texts some of other rows."""
    chance = random.Random(SEED)  # noqa: S311 - no secret
    texts = [text for row in rows for text in row["pos"]]
    filled = []
    for row in rows:
        negatives = list(row["neg"])
        if not negatives:
            drawn = chance.sample(texts, min(len(texts), NEGATIVES + len(row["pos"])))
            negatives = [text for text in drawn if text not in row["pos"]][:NEGATIVES]
        if not negatives:
            raise OptionError(
                "There are no texts to tell the right ones from",
                hint="Give rows a `neg`, or rows with different `pos`.",
            )
        filled.append({**row, "neg": negatives})
    return filled


def _defaults(
    model: Model, guess: Estimate, rows: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    group = int(options.get("train_group_size") or 4)
    batch = int(
        options.get("per_device_train_batch_size") or min(8 * guess.batch, max(2, rows // 4))
    )
    steps = max(1, int(rows / batch * float(options.get("num_train_epochs") or 3)))
    filled: dict[str, Any] = {
        "learning_rate": 2e-5,
        "num_train_epochs": 3,
        "per_device_train_batch_size": batch,
        "train_group_size": group,
        "query_max_len": min(guess.cutoff, 128),
        "passage_max_len": min(guess.cutoff, 512),
        "fp16": guess.gpu,
        "use_cpu": not guess.gpu,
        "logging_steps": max(1, steps // POINTS),
        "save_steps": max(1, steps // CHECKPOINTS),
        "save_total_limit": 2,
        "report_to": "none",
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": guess.gpu,
        "seed": SEED,
    }
    if model.type == "rerank":
        filled["max_len"] = min(guess.cutoff, 512)
    else:
        filled |= {"temperature": 0.02, "sentence_pooling_method": _pooling(Path(model.path))}
    return filled


def _pooling(folder: Path) -> str:
    """Return how the checkpoint makes one vector of its tokens'."""
    try:
        found = json.loads((folder / "1_Pooling" / "config.json").read_bytes())
    except (OSError, ValueError):
        return "cls"
    if "pooling_mode" in found:
        return {"mean": "mean", "lasttoken": "last_token"}.get(found["pooling_mode"], "cls")
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last_token"}
    return next((word for key, word in names.items() if found.get(key)), "cls")


trainer = Trainer(
    name="flagembedding",
    types=("embed", "rerank"),
    formats=("safetensors", "other"),
    package="FlagEmbedding",
    requirement="FlagEmbedding",
    options={
        **read_options("flagembedding", OURS),
        "val_size": Option(float, "queries to hold out: a share of them, or a number"),
        "max_samples": Option(int, "rows to use, at most"),
    },
    aliases={"batch_size": "per_device_train_batch_size", "epochs": "num_train_epochs"},
    command=command,
    shapes=("retrieval",),
    plan=plan,
)
