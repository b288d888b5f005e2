"""What a run will see: its rows as the trainer itself turns them into tokens.

    python preview.py PLAN ROWS

Runs in the trainer's environment, by path, and prints one line of JSON: `tokens`, how long each row is; `rows`, the
first ROWS rows in pieces `[text, whether the model learns it]`; and `limit`, the tokens at which a row is cut.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import weights

UNLIMITED = 1 << 20
IGNORED = -100
"""The label of a token that is only read."""


def main() -> None:
    """Print the preview of a plan."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.chdir(Path(sys.argv[1]).parent)
    count = int(sys.argv[2])
    found = _retrieval(plan, count) if "kind" in plan else _chat(plan, count)
    print("\n" + json.dumps(found), flush=True)  # noqa: T201


def _chat(plan: dict[str, Any], count: int) -> dict[str, Any]:
    """Let LLaMA-Factory prepare the rows, none of them cut."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    base = Path(plan["base"])
    if plan["unpacked"]:
        original, base = base, Path(plan["unpacked"])
        if not base.is_dir():
            weights.unpack(original, base)
    config = {
        **plan["train"],
        "model_name_or_path": str(base),
        "cutoff_len": UNLIMITED,
        "val_size": 0,
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "packing": False,
        "preprocessing_num_workers": 1,
        "output_dir": tempfile.mkdtemp(dir="."),
    }
    model, data, training, finetuning, _ = get_train_args(config)
    tokens = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokens["tokenizer"], data)
    stage = "rm" if finetuning.stage == "dpo" else finetuning.stage  # the same rows
    found = get_dataset(template, model, data, training, stage=stage, **tokens)
    lengths, rows = [], []
    for number, row in enumerate(found["train_dataset"]):
        # A preference has two answers to one prompt; the longer one counts, and the chosen one is shown.
        sides = [key for key in row if key.endswith("input_ids") and not key.startswith("kl_")]
        lengths.append(max(len(row[side]) for side in sides))
        if number < count:
            side = next((s for s in sides if s.startswith("chosen")), sides[0])
            labels = row.get(side.replace("input_ids", "labels"), row[side])
            rows.append(_pieces(tokens["tokenizer"], row[side], labels))
    return {"tokens": lengths, "rows": rows, "limit": plan["train"]["cutoff_len"]}


def _pieces(tokenizer: Any, ids: list[int], labels: list[int]) -> list[tuple[str, bool]]:
    return [
        (tokenizer.decode([token for token, _ in group]), learned)
        for learned, group in groupby(
            zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED
        )
    ]


def _retrieval(plan: dict[str, Any], count: int) -> dict[str, Any]:
    """Count the tokens of queries and texts; each kind has a limit of its own."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(plan["base"])
    train = plan["train"]
    limit = int(train.get("passage_max_len") or 512)
    lengths, rows = [], []
    for number, line in enumerate(Path(train["train_data"][0]).read_text("utf-8").splitlines()):
        row = json.loads(line)
        texts = [row["query"], *row["pos"], *row["neg"]]
        lengths.append(max(map(len, tokenizer(texts)["input_ids"])))
        if number < count:
            pieces = [(f"query    {row['query']}\n", True)]
            pieces += [(f"right    {text}\n", True) for text in row["pos"]]
            rows.append([*pieces, *((f"wrong    {text}\n", False) for text in row["neg"])])
    return {"tokens": lengths, "rows": rows, "limit": limit}


if __name__ == "__main__":
    main()
