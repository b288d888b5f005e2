"""The live curve of a fine-tuning run's loss, drawn anew at most twice a second while there is something new.

In a page it is a widget (livecurve.py), which a page that is opened in mid-run shows too. Elsewhere, and where no page
reports itself within a second, it is a small SVG without a widget. When the run ends, both settle to that picture and a
table. In a terminal a line is printed now and then.
"""

from __future__ import annotations

import re
import threading
import time
from html import escape
from typing import TYPE_CHECKING, Any

from lazynb.errors import JobError
from lazynb.jobs.spec import ENDED_PHASES
from lazynb.notebook import frontend
from lazynb.notebook.drawing import Line, draw, image
from lazynb.notebook.picture import save
from lazynb.notebook.progress import MUTED, RED, STYLE
from lazynb.training.metrics import Curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.notebook.livecurve import LiveCurve
    from lazynb.training import Run

PERIOD = 0.5  # seconds between two drawings
PATIENCE = 1.0  # seconds that a page has to report its view
TERMINAL_PERIOD = 2.0
LINES, COLUMNS = 8, 300  # of the log


def show_run(run: Run, *, block: bool) -> None:
    """Show how a run goes, in the current cell.

    Parameters
    ----------
    run : Run
        The run.
    block : bool
        Return when it is finished; an interrupt ends the waiting and not the run. False returns at once.

    Raises
    ------
    JobError
        When blocking: it failed or was stopped.
    """
    if frontend.frontend() == "terminal":
        _print(run, block=block)
    else:
        view = RunView(run)
        if block:
            frontend.wait(view.over, serve=frontend.frontend() == "page")
    if block:
        run.wait()


def plot_runs(runs: Sequence[Run], file: str = "") -> None:
    """Draw the losses of several runs into one picture, and into a file where one is named."""
    lines = []
    for run in runs:
        curve = Curve(run.folder / "trainer_log.jsonl")
        curve.update()
        if not curve.loss.shown:
            raise JobError(f"The run {run.id} has no losses yet", job=run.name)
        lines.append(Line(f"{run.name} {run.id}", curve.loss, curve.evaluated))
    words = "\n".join(f"{line.name}: loss {line.loss.shown[-1][1]:.4f}" for line in lines)
    if file:
        save(lines, file)
    frontend.Display({"image/svg+xml": draw(lines), "text/plain": words})


class RunView:
    """One output that follows a run to its end."""

    def __init__(self, run: Run) -> None:
        self.over = threading.Event()
        self._run = run
        self._curve = Curve(run.folder / "trainer_log.jsonl")
        self._live: LiveCurve | None = None
        if frontend.frontend() == "page":
            from lazynb.notebook.livecurve import LiveCurve

            self._live = LiveCurve(run.name)
        self._shown: dict[str, Any] = {}
        self._deadline = time.monotonic() + PATIENCE
        self._shown = self._bundle()
        self._display = frontend.Display(self._shown)
        threading.Thread(target=self._follow, name="lazynb-curve", daemon=True).start()

    def _follow(self) -> None:
        try:
            while True:
                ended = self._run.job is None or self._run.job.state.phase in ENDED_PHASES
                self._curve.update()
                if (
                    self._live
                    and time.monotonic() > self._deadline
                    and not self._live.reported.is_set()
                ):
                    self._live = None
                bundle = self._settled() if ended else self._bundle()
                if ended and self._live:
                    self._live.settle(bundle)
                if bundle != self._shown:
                    self._shown = bundle
                    self._display.update(bundle)
                if ended:
                    return
                time.sleep(PERIOD)
        finally:
            self.over.set()

    def _bundle(self) -> dict[str, Any]:
        line = status_line(self._run, self._curve)
        if self._live:
            self._live.show(line, self._curve)
            return self._shown or self._live.bundle(line)
        picture = _picture(self._run, self._curve)
        html = f'<div style="{STYLE}{MUTED}">{escape(line)}</div>'
        return {"text/plain": line, "text/html": f"<div>{picture}{html}</div>"}

    def _settled(self) -> dict[str, str]:
        run, curve = self._run, self._curve
        line = status_line(run, curve)
        state = run.job.state if run.job else None
        parts = [_picture(run, curve), _table(curve)]
        plain = [line]
        failed = state is not None and state.phase == "failed"
        parts.append(f'<div style="{STYLE}{RED if failed else MUTED}">{escape(line)}</div>')
        if state is not None and failed:
            plain.append(state.hint)
            tail = escape("\n".join(line[:COLUMNS] for line in state.log_tail[-LINES:]))
            parts.append(f'<div style="{STYLE}">{escape(state.hint)}</div>')
            parts.append(f"<details><summary>log</summary><pre>{tail}</pre></details>")
        return {"text/plain": "\n".join(plain), "text/html": f"<div>{''.join(parts)}</div>"}


def status_line(run: Run, curve: Curve) -> str:
    """Return how a run stands, in one line."""
    state = run.job.state if run.job else None
    status, latest = run.status, curve.latest
    words = [run.name, status]
    if status == "failed" and state is not None:
        words[-1] = f"failed: {state.cause}"
    elif status not in {"finished", "stopped"} and state is not None and state.text:
        words.append(state.text)
    elif "loss" in latest:
        words += [f"{latest['current_steps']} steps", f"loss {latest['loss']:.4f}"]
    stepping = status == "training" and state is not None and state.done is not None
    if stepping:
        words += _pace(latest)
    return " · ".join(words)


def _pace(latest: dict[str, Any]) -> list[str]:
    """Return how fast a run learns, in both senses, and when it is over."""
    words = [f"learning rate {latest['lr']:.1e}"] if "lr" in latest else []
    spent = re.fullmatch(r"(?:(\d+) days?, )?(\d+):(\d+):(\d+)", latest.get("elapsed_time", ""))
    if spent:
        days, hours, minutes, rest = (int(part or 0) for part in spent.groups())
        seconds = ((24 * days + hours) * 60 + minutes) * 60 + rest
        words += [f"{latest['current_steps'] / seconds:.2g} steps/s"] if seconds else []
    if latest.get("remaining_time"):
        words.append(f"{latest['remaining_time']} left")
    return words


def _picture(run: Run, curve: Curve) -> str:
    if not curve.loss.shown:
        return ""
    return image(draw([Line(run.name, curve.loss, curve.evaluated)]))


def _table(curve: Curve) -> str:
    names = {
        "current_steps": "steps",
        "loss": "loss",
        "eval_loss": "evaluation loss",
        "lr": "learning rate",
        "elapsed_time": "time",
    }
    latest: dict[str, Any] = curve.latest
    metrics = {name: name.removeprefix("eval_") for name in latest if "@" in name}
    cells = {title: latest[name] for name, title in (names | metrics).items() if name in latest}
    if not cells:
        return ""
    head = "".join(f'<th style="text-align:right">{escape(title)}</th>' for title in cells)
    body = "".join(
        f'<td style="text-align:right">{escape(f"{v:.4g}" if isinstance(v, float) else str(v))}</td>'
        for v in cells.values()
    )
    return f'<table style="{STYLE}"><tr>{head}</tr><tr>{body}</tr></table>'


def _print(run: Run, *, block: bool) -> None:
    curve = Curve(run.folder / "trainer_log.jsonl")
    shown, said = "", 0.0
    while True:
        curve.update()
        ended = run.job is None or run.job.state.phase in ENDED_PHASES
        line = status_line(run, curve)
        if ended or (line != shown and time.monotonic() - said > TERMINAL_PERIOD):
            print(line)  # noqa: T201 - the terminal's view
            shown, said = line, time.monotonic()
        if ended or not block:
            return
        time.sleep(PERIOD)
