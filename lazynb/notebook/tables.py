"""Tables of what there is: services, runs, models. Plain text and HTML of our own, everything escaped."""

from __future__ import annotations

import time
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from lazynb.card import COLORS, STARTING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.training import Run

STYLE = "font-family:var(--jp-ui-font-family,sans-serif);font-size:var(--jp-ui-font-size1,13px)"


class Table:
    """Rows as they stood when they were asked for.

    Parameters
    ----------
    rows : sequence of tuple of str
        A cell for each name in `header`.
    hovers : sequence of str
        What hovering over the relative time of each row shows.
    """

    header: tuple[str, ...]
    numbers: ClassVar[frozenset[str]] = frozenset()
    """Columns that are aligned to the right."""
    empty: ClassVar[str]
    """What stands in place of a table without rows."""
    relative: ClassVar[str] = ""
    """The column of relative times."""

    def __init__(self, rows: Sequence[tuple[str, ...]], hovers: Sequence[str]) -> None:
        self.rows = list(rows)
        self._hovers = list(hovers)

    def __repr__(self) -> str:
        if not self.rows:
            return self.empty
        rows = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.header))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if name in self.numbers else cell.ljust(width)
                for name, cell, width in zip(self.header, row, widths, strict=True)
            ).rstrip()
            for row in rows
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        if not self.rows:
            return {"text/plain": repr(self)}
        head = "".join(
            f'<th style="{self._align(name)}">{escape(name)}</th>' for name in self.header
        )
        body = "".join(
            f"<tr>{''.join(map(self._cell, self.header, row, [hover] * len(row)))}</tr>"
            for row, hover in zip(self.rows, self._hovers, strict=True)
        )
        table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        return {"text/plain": repr(self), "text/html": f'<table style="{STYLE}">{table}</table>'}

    def _align(self, name: str) -> str:
        return f"text-align:{'right' if name in self.numbers else 'left'}"

    def _cell(self, name: str, text: str, hover: str) -> str:
        title = f' title="{escape(hover)}"' if name == self.relative else ""
        color = COLORS.get(text.partition(":")[0], STARTING)
        dot = f'<span style="color:{color}">●</span> ' if name == "status" else ""
        return f'<td style="{self._align(name)}"{title}>{dot}{escape(text)}</td>'


class RunTable(Table):
    """Fine-tuning runs."""

    header = ("run", "target", "status", "base", "method", "step", "loss", "eval loss", "began")
    numbers = frozenset({"step", "loss", "eval loss", "began"})
    empty = "There are no runs. Start one with %lazyllm finetune MODEL DATA."
    relative = "began"

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        plans = [run.plan["version"] for run in self.runs]
        super().__init__(
            [_run(run, plan) for run, plan in zip(self.runs, plans, strict=True)],
            [moment(plan["created"]) for plan in plans],
        )


def _run(run: Run, plan: dict[str, Any]) -> tuple[str, ...]:
    last: dict[str, Any] = {}
    for row in run.rows:
        last |= row
    steps = f"{last['current_steps']}/{last['total_steps']}" if "total_steps" in last else ""
    losses = [f"{last[key]:.3f}" if key in last else "" for key in ("loss", "eval_loss")]
    began = f"{ago(time.time() - plan['created'])} ago"
    return (run.id, run.name, run.status, plan["base"], plan["method"], steps, *losses, began)


def moment(created: float) -> str:
    """Return a time as a date and the time of day."""
    return datetime.fromtimestamp(created).astimezone().isoformat(" ", "seconds")


def ago(seconds: float) -> str:
    """Return a duration in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
