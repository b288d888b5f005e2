"""Live progress of a model that starts: a thin bar, what is being done in words, and the log behind a triangle.

The output is small HTML of our own in which everything is escaped, rewritten when something changed and at most four
times a second. It settles to one line. In a terminal a line is printed for each change of phase.
"""

from __future__ import annotations

import threading
import time
from html import escape
from typing import TYPE_CHECKING

from lazynb.jobs.spec import ENDED_PHASES
from lazynb.notebook import frontend

if TYPE_CHECKING:
    from lazynb.jobs import Job
    from lazynb.jobs.spec import JobState

PERIOD = 0.25  # seconds between two updates
LINES = 12  # of the log
STYLE = "font-family:var(--jp-ui-font-family,sans-serif);font-size:var(--jp-ui-font-size1,13px);"
MUTED = "color:var(--jp-ui-font-color2,#757575)"
RED = "color:var(--jp-error-color1,#d32f2f)"


def show_job(job: Job, *, block: bool) -> None:
    """Show how a service comes up, in the current cell.

    Parameters
    ----------
    job : Job
        The service.
    block : bool
        Return when it is ready; an interrupt ends the waiting and not the service. False returns at once.

    Raises
    ------
    JobError
        When blocking: it failed, or ended before it was ready.
    """
    if frontend.frontend() == "terminal":
        _print(job, block=block)
        return
    view = JobView(job)
    if block:
        frontend.wait(view.over, serve=frontend.frontend() == "page")
        job.wait(ended=job.spec.kind == "download")


class JobView:
    """One output that follows a service until it is ready or has ended."""

    def __init__(self, job: Job) -> None:
        self.over = threading.Event()
        self._job = job
        self._begin = time.time()
        self._changed = threading.Event()
        self._shown = _bundle(job, job.state)
        self._display = frontend.Display(self._shown)
        if _settled(job.state):
            self.over.set()
            return
        self._unsubscribe = job.subscribe(lambda _: self._changed.set())
        threading.Thread(target=self._follow, name="lazynb-progress", daemon=True).start()

    def _follow(self) -> None:
        try:
            while True:
                state = self._job.state
                bundle = _bundle(self._job, state)
                if bundle != self._shown:
                    self._shown = bundle
                    self._display.update(bundle)
                if _settled(state):
                    return
                self._changed.wait()
                self._changed.clear()
                if not _settled(self._job.state):
                    time.sleep(PERIOD)
        finally:
            self._unsubscribe()
            self.over.set()


def line(job: Job, state: JobState) -> str:
    """Return how a service stands, in one line."""
    if state.phase == "ready":
        seconds = state.since - job.spec.created
        return f"{job.name} · ready in {seconds:.1f} s · {state.engine} · {job.url}"
    if job.spec.kind == "download" and state.phase == "stopped" and state.returncode == 0:
        return f"{job.spec.model} · downloaded in {state.since - job.spec.created:.0f} s"
    if state.phase in ENDED_PHASES:
        return f"{job.name} · {state.phase}" + (f": {state.cause}" if state.cause else "")
    return f"{job.name} · {state.phase}" + (f": {state.text}" if state.text else "")


def _settled(state: JobState) -> bool:
    return state.phase == "ready" or state.phase in ENDED_PHASES


def _bundle(job: Job, state: JobState) -> dict[str, str]:
    text = line(job, state)
    parts = [f'<div style="{RED if state.phase == "failed" else MUTED}">{escape(text)}</div>']
    if job.spec.why and state.phase in ("loading", "ready"):
        text += "" if _settled(state) else f"\n{job.spec.why}"
        parts.append(f'<div style="{MUTED}">{escape(job.spec.why)}</div>')
    if not _settled(state):
        parts.insert(0, _bar(state))
    if state.phase == "failed":
        text = "\n".join(filter(None, [text, state.hint]))
        parts.append(f"<div>{escape(state.hint)}</div>")
    tail = (state.log_tail or job.tail(LINES))[-LINES:] if state.phase != "ready" else []
    if tail:
        log = escape("\n".join(tail))
        parts.append(f"<details><summary>log</summary><pre>{log}</pre></details>")
    return {"text/plain": text, "text/html": f'<div style="{STYLE}">{"".join(parts)}</div>'}


def _bar(state: JobState) -> str:
    share = state.done / state.total if state.done is not None and state.total else 0.0
    track = "height:3px;margin:2px 0 4px;background:var(--jp-layout-color3,#e0e0e0)"
    fill = f"height:3px;width:{min(share, 1):.0%};background:var(--jp-brand-color1,#1976d2)"
    return f'<div style="{track}"><div style="{fill}"></div></div>'


def _print(job: Job, *, block: bool) -> None:
    shown = ""
    if job.spec.why:
        print(job.spec.why)  # noqa: T201 - the terminal's view
    while True:
        state = job.state
        text = f"{job.name} · {state.phase}" if not _settled(state) else line(job, state)
        if text != shown:
            print(text)  # noqa: T201 - the terminal's view
            shown = text
        if _settled(state) or not block:
            break
        time.sleep(PERIOD / 5)
    if block:
        job.wait(ended=job.spec.kind == "download")
