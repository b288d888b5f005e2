"""One fine-tuning run with FlagEmbedding: an embedder or a reranker, measured on held-out queries before and after.

    python retrieval.py PLAN

Runs in the trainer's environment, by path, as sft.py does.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reporting import drop_torn_checkpoints, final_metrics, finish, follower, progress, write_entry

if TYPE_CHECKING:
    from collections.abc import Iterable

DEPTH = 10
"""Ranks that count in a metric."""
CORPUS = 2000
"""Texts among which a held-out query is looked for, at most."""

Row = dict[str, Any]


def main() -> None:
    """Carry out the plan."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.chdir(Path(sys.argv[1]).parent)
    held_out = _rows(Path("data/held_out.jsonl"))
    measured = measure_embedder if plan["kind"] == "embed" else measure_reranker
    began = time.time()
    before: dict[str, float] = {}
    if held_out:
        progress("measuring the base model")
        before = measured(plan["base"], held_out)
        write_entry({"current_steps": 0, "total_steps": 0, **before})
    progress("starting FlagEmbedding")
    trainer = train(plan)
    result = {**plan["version"], "weights": "output", "seconds": time.time() - began}
    if held_out:
        progress("measuring the tuned model")
        step = {"current_steps": trainer.state.global_step, "total_steps": trainer.state.max_steps}
        write_entry({**step, **measured("output", held_out)})
    metrics = final_metrics()
    metrics |= {f"base_{name.removeprefix('eval_')}": value for name, value in before.items()}
    finish({**result, "metrics": metrics})
    for checkpoint in Path("output").glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def train(plan: dict[str, Any]) -> Any:
    """Train, from the last checkpoint on where there is one; returns transformers' Trainer."""
    from transformers import HfArgumentParser
    from transformers.trainer_utils import get_last_checkpoint

    drop_torn_checkpoints()
    output = Path(plan["train"]["output_dir"])
    last = get_last_checkpoint(str(output)) if output.is_dir() else None
    runner_class, arguments = classes(plan["kind"])
    config = {**plan["train"], "model_name_or_path": plan["base"], "resume_from_checkpoint": last}
    runner = runner_class(*HfArgumentParser(arguments).parse_dict(config))
    runner.trainer.add_callback(follower(write_entry))
    runner.run()
    return runner.trainer


def classes(kind: str) -> tuple[Any, tuple[Any, ...]]:
    """Return FlagEmbedding's runner and the classes of its options, for an embedder or a reranker."""
    if kind == "embed":
        from FlagEmbedding.abc.finetune import embedder as options
        from FlagEmbedding.finetune.embedder.encoder_only.base import EncoderOnlyEmbedderRunner

        runner: Any = EncoderOnlyEmbedderRunner
    else:
        from FlagEmbedding.abc.finetune import reranker as options
        from FlagEmbedding.finetune.reranker.encoder_only.base import EncoderOnlyRerankerRunner

        runner = EncoderOnlyRerankerRunner
    prefix = "AbsEmbedder" if kind == "embed" else "AbsReranker"
    parts = ("ModelArguments", "DataArguments", "TrainingArguments")
    return runner, tuple(getattr(options, prefix + part) for part in parts)


def measure_embedder(model: str, rows: list[Row]) -> dict[str, float]:
    """Look for the right text of each held-out query among all of them."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model)
    corpus = _corpus(rows)
    texts = encoder.encode(corpus, normalize_embeddings=True)
    queries = encoder.encode([row["query"] for row in rows], normalize_embeddings=True)
    scores = queries @ texts.T
    return metrics(
        (corpus, list(map(float, line)), set(row["pos"]))
        for row, line in zip(rows, scores, strict=True)
    )


def measure_reranker(model: str, rows: list[Row]) -> dict[str, float]:
    """Order the right and wrong texts of each held-out query."""
    from sentence_transformers import CrossEncoder

    scorer = CrossEncoder(model, num_labels=1)
    found = []
    for row in rows:
        texts = [*row["pos"], *row["neg"]]
        scores = scorer.predict([(row["query"], text) for text in texts])
        found.append((texts, list(map(float, scores)), set(row["pos"])))
    return metrics(found)


def metrics(ranked: Iterable[tuple[list[str], list[float], set[str]]]) -> dict[str, float]:
    """Return recall at 1 and 10, mean reciprocal rank and nDCG, all at depth 10, between 0 and 1.

    Parameters
    ----------
    ranked : iterable of (texts, scores, right texts)
        One for each query.
    """
    totals = {"eval_recall@1": 0.0, "eval_recall@10": 0.0, "eval_mrr@10": 0.0, "eval_ndcg@10": 0.0}
    count = 0
    for texts, scores, right in ranked:
        order = sorted(range(len(texts)), key=lambda i: -scores[i])[:DEPTH]
        hits = [texts[i] in right for i in order]
        first = hits.index(True) + 1 if True in hits else 0
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(len(right), DEPTH)))
        gain = sum(1 / math.log2(rank + 2) for rank, hit in enumerate(hits) if hit)
        totals["eval_recall@1"] += hits[0]
        totals["eval_recall@10"] += sum(hits) / min(len(right), DEPTH)
        totals["eval_mrr@10"] += 1 / first if first else 0.0
        totals["eval_ndcg@10"] += gain / ideal
        count += 1
    return {name: round(total / max(1, count), 4) for name, total in totals.items()}


def _rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _corpus(rows: list[Row]) -> list[str]:
    texts = [text for row in rows for text in [*row["pos"], *row["neg"]]]
    return list(dict.fromkeys(texts))[:CORPUS]


if __name__ == "__main__":
    main()
