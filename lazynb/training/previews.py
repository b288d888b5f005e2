"""What a model will see of its training data: the text with its template, what of it is learned, and how long it is.

The trainer's own code makes it, in the trainer's environment: what is shown is what is trained on.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lazynb.errors import LazynbError

if TYPE_CHECKING:
    from lazynb.hub import Model
    from lazynb.training.data import Dataset
    from lazynb.training.trainer import Trainer

PROGRAM = Path(__file__).parents[1] / "servers" / "tuning" / "preview.py"
LEARNED = "background:rgba(25,118,210,0.18)"
NAMED = 10
"""Rows that are too long which are named."""


@dataclass(frozen=True)
class Preview:
    """Rows as the model will see them.

    Parameters
    ----------
    rows : list of list of (str, bool)
        The first rows, each in pieces: the text, and whether the model learns to say it.
    tokens : list of int
        How long each row is.
    limit : int
        Tokens at which a row is cut.
    """

    rows: list[list[tuple[str, bool]]]
    tokens: list[int]
    limit: int

    @property
    def over_long(self) -> list[int]:
        """The numbers of the rows that will be cut; the first row is 1."""
        return [number for number, count in enumerate(self.tokens, 1) if count > self.limit]

    @property
    def summary(self) -> str:
        """How many tokens there are, in words."""
        if not self.tokens:
            return "no row is left to learn from"
        words = [
            f"{len(self.tokens)} rows",
            f"{sum(self.tokens):,} tokens",
            f"median {median(self.tokens):.0f}, longest {max(self.tokens)}, cut at {self.limit}",
        ]
        if cut := self.over_long:
            names = ", ".join(map(str, cut[:NAMED])) + (" …" if len(cut) > NAMED else "")
            words.append(f"{len(cut)} too long: row {names}")
        return " · ".join(words)

    def __repr__(self) -> str:
        blocks = [self.summary]
        for number, row in enumerate(self.rows, 1):
            text = "".join(f"⟦{piece}⟧" if learned else piece for piece, learned in row)
            blocks.append(f"— row {number}, {self.tokens[number - 1]} tokens\n{text.rstrip()}")
        return "\n".join([*blocks, "⟦…⟧ is what the model learns"])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        rows = "".join(
            f'<div style="opacity:0.7">row {number}, {self.tokens[number - 1]} tokens</div>'
            f'<pre style="white-space:pre-wrap;margin:2px 0 8px">{"".join(map(_piece, row))}</pre>'
            for number, row in enumerate(self.rows, 1)
        )
        key = f'<span style="{LEARNED}">marked</span> is what the model learns'
        html = f"<div><div>{escape(self.summary)} · {key}</div>{rows}</div>"
        return {"text/plain": repr(self), "text/html": html}


def make(
    trainer: Trainer, model: Model, dataset: Dataset, options: dict[str, Any], count: int
) -> Preview:
    """Return what a trainer makes of the data.

    Raises
    ------
    LazynbError
        The model is not on this machine, or the trainer refused the data.
    """
    from lazynb.engines import interpreter
    from lazynb.jobs.program import environment
    from lazynb.training.llamafactory import environment as quiet

    if not model.present:
        hint = f"First: %lazyllm pull {model.name} --wait"
        raise LazynbError(f"A preview takes {model.name}'s tokenizer, which is not here", hint=hint)
    if "retrieval" in trainer.shapes:  # all rows, in their order
        options = {**options, "val_size": 0}
    with tempfile.TemporaryDirectory(prefix="lazynb-preview-") as folder:
        plan = Path(folder, "plan.json")
        plan.write_text(json.dumps(trainer.plan(model, dataset, options, Path(folder))))
        ran = subprocess.run(
            [interpreter(trainer), str(PROGRAM), str(plan), str(count)],
            env=environment(quiet(), ""),
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        raise LazynbError("The trainer cannot read the data", hint=ran.stderr.strip()[-600:])
    found = json.loads(ran.stdout.rstrip().rpartition("\n")[2])
    rows = [[(text, bool(learned)) for text, learned in row] for row in found["rows"]]
    return Preview(rows, found["tokens"], found["limit"])


def _piece(piece: tuple[str, bool]) -> str:
    text, learned = piece
    return f'<span style="{LEARNED}">{escape(text)}</span>' if learned else escape(text)
