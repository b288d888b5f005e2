"""The table of `%lazyllm ps`: plain text and HTML of our own, everything escaped."""

from __future__ import annotations

import time
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from lazynb.card import COLORS, STARTING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.jobs import Job

HEADER = ("name", "status", "engine", "address", "memory (MB)", "up", "owner")
NUMBERS = {"memory (MB)", "up"}


class JobTable:
    """Jobs as they stood when they were asked for."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.rows = [_row(job) for job in jobs]
        self._since = [datetime.fromtimestamp(job.spec.created).astimezone() for job in jobs]

    def __repr__(self) -> str:
        if not self.rows:
            return "Nothing is running. Start a model with %lazyllm deploy MODEL."
        rows = [HEADER, *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if name in NUMBERS else cell.ljust(width)
                for name, cell, width in zip(HEADER, row, widths, strict=True)
            ).rstrip()
            for row in rows
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        if not self.rows:
            return {"text/plain": repr(self)}
        head = "".join(f'<th style="{_align(name)}">{escape(name)}</th>' for name in HEADER)
        body = "".join(
            f"<tr>{''.join(_cell(name, text, since.isoformat(' ', 'seconds')) for name, text in zip(HEADER, row, strict=True))}</tr>"
            for row, since in zip(self.rows, self._since, strict=True)
        )
        style = (
            "font-family:var(--jp-ui-font-family,sans-serif);font-size:var(--jp-ui-font-size1,13px)"
        )
        return {
            "text/plain": repr(self),
            "text/html": f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>',
        }


def _row(job: Job) -> tuple[str, ...]:
    state = job.state
    owner = "this kernel" if job.owned else "another kernel"
    return (
        job.name,
        state.phase,
        state.engine,
        f"127.0.0.1:{state.port}" if state.port else "",
        f"{job.memory() / 1e6:.0f}" if job.live else "",
        ago(time.time() - job.spec.created),
        "kept" if job.spec.keep else owner,
    )


def _align(name: str) -> str:
    return f"text-align:{'right' if name in NUMBERS else 'left'}"


def _cell(name: str, text: str, since: str) -> str:
    title = f' title="{escape(since)}"' if name == "up" else ""
    dot = f'<span style="color:{COLORS.get(text, STARTING)}">●</span> ' if name == "status" else ""
    return f'<td style="{_align(name)}"{title}>{dot}{escape(text)}</td>'


def ago(seconds: float) -> str:
    """Return a duration in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
