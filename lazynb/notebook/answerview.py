"""Show an answer in a cell: live while it is made, plain when it is done.

One state machine drives three views. In a page the text travels as deltas to a widget (live.py); a view that does
not report itself within a second is replaced by the plain one, rewritten as the text grows by a quarter;
a terminal gets the text as it comes. In the end the output settles to Markdown and plain text (settle.py).
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from lazynb.notebook import frontend
from lazynb.notebook.settle import settled, summary

if TYPE_CHECKING:
    from lazynb.jobs import Job
    from lazynb.notebook.live import LiveView
    from lazynb.streaming import Answer

PERIOD = 0.05  # seconds between two messages with text
PATIENCE = 1.0  # seconds that a page has to report its view
GROWTH = 1.25  # a plain output is written again when it has grown by this
CANCELLING = 2.0  # seconds that a cancelled answer has to end


def show_answer(
    answer: Answer, *, job: Job | None = None, block: bool = True, raw: bool = False
) -> None:
    """Show an answer in the current cell.

    Parameters
    ----------
    answer : Answer
        What is shown.
    job : Job, optional
        Its service; while that starts, the view says how it comes up.
    block : bool
        Return when the answer is complete; False returns at once, and the view goes on by itself.
    raw : bool
        The text alone, on standard output.

    Raises
    ------
    LazynbError
        What went wrong, after what arrived before it was shown.
    KeyboardInterrupt
        After the request was cancelled and the partial text shown.
    """
    place = frontend.frontend()
    if raw or (place == "terminal" and block):
        _print(answer, line=not raw)
        return
    if place == "terminal":
        return  # a thread must not print; the handle has it all
    view = AnswerView(answer, job, place)
    if not block:
        return
    try:
        frontend.wait(view.over, serve=place == "page")
    except KeyboardInterrupt:
        answer.cancel()
        view.over.wait(CANCELLING)
        raise
    if answer.error is not None:
        raise answer.error


class AnswerView:
    """One output that follows an answer to its end.

    Parameters
    ----------
    answer : Answer
        What is shown.
    job : Job or None
        Its service.
    place : {'page', 'notebook'}
        Whether a widget is tried.
    """

    def __init__(self, answer: Answer, job: Job | None, place: str) -> None:
        self.answer = answer
        self.over = threading.Event()
        self._job = job
        self._changed = threading.Event()
        self._live: LiveView | None = None
        self._written = 0  # characters of the plain output
        if place == "page":
            from lazynb.notebook.live import LiveView

            self._live = LiveView(answer, answer.model or answer.service)
        self._display = frontend.Display(self._live.bundle if self._live else self._plain())
        self._unsubscribe = [answer.subscribe(self._changed.set)]
        if job is not None:
            self._unsubscribe.append(job.subscribe(lambda _: self._changed.set()))
        threading.Thread(target=self._follow, name="lazynb-view", daemon=True).start()

    def _follow(self) -> None:
        """Send what is new, not more often than every 50 ms, until the answer is over."""
        deadline = time.monotonic() + PATIENCE
        try:
            while not self.answer.done:
                self._changed.wait(None if self._settled_on_a_view() else PERIOD)
                self._changed.clear()
                if self._live and not self._live.reported.is_set() and time.monotonic() > deadline:
                    self._live = None
                    self._display.update(self._plain())
                self._show()
                time.sleep(PERIOD)
            if self._live:
                self._live.flush()
            self._display.update(settled(self.answer))
        finally:
            for unsubscribe in self._unsubscribe:
                unsubscribe()
            self.over.set()

    def _settled_on_a_view(self) -> bool:
        return self._live is None or self._live.reported.is_set()

    def _show(self) -> None:
        if self._live:
            self._live.say(self._status())
            self._live.flush()
        elif self.answer.size > self._written * GROWTH:
            self._display.update(self._plain())

    def _plain(self) -> dict[str, str]:
        text = self.answer.text
        self._written = len(text)
        return {"text/plain": text or f"{summary(self.answer)} · {self._status() or 'answering'} …"}

    def _status(self) -> str:
        """Say what the service does while there is no text."""
        if self._job is None or self.answer.status != "waiting":
            return ""
        state = self._job.state
        return "" if state.phase == "ready" else state.text or state.phase


def _print(answer: Answer, *, line: bool) -> None:
    """Write an answer to standard output as it comes."""
    try:
        for chunk in answer:
            sys.stdout.write(chunk)
            sys.stdout.flush()
    except KeyboardInterrupt:
        answer.cancel()
        raise
    finally:
        with suppress(ValueError):
            sys.stdout.write(f"\n[{summary(answer)}]\n" if line else "\n")
            sys.stdout.flush()
