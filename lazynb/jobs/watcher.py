"""One thread that tells of changes in the states of jobs.

It looks ten times a second while a job is on its way to being ready or ended, once a second otherwise, and it
ends with the last subscription.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from lazynb.jobs.spec import ENDED_PHASES

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynb.jobs.job import Job
    from lazynb.jobs.spec import JobState

BUSY_PERIOD, IDLE_PERIOD = 0.1, 1.0

_lock = threading.Lock()
_news = threading.Event()
_subscriptions: list[_Subscription] = []
_thread: threading.Thread | None = None


class _Subscription:
    def __init__(self, job: Job, callback: Callable[[JobState], None]) -> None:
        self.job = job
        self.callback = callback
        self.seen: JobState | None = None

    def look(self) -> None:
        """Call back when the state is another one; the last state ends the subscription."""
        state = self.job.state
        if state != self.seen:
            self.seen = state
            try:
                self.callback(state)
            except Exception:
                import logging

                logging.getLogger(__name__).exception("A callback on %s failed", self.job.name)
        if state.phase in ENDED_PHASES:
            self.end()

    @property
    def busy(self) -> bool:
        return self.seen is None or self.seen.phase != "ready"

    def end(self) -> None:
        with _lock, suppress(ValueError):
            _subscriptions.remove(self)


def watch(job: Job, callback: Callable[[JobState], None]) -> Callable[[], None]:
    """Call back with the state of a job, now and after each change, until it has ended.

    Returns
    -------
    callable
        Ends the subscription.
    """
    global _thread  # noqa: PLW0603
    subscription = _Subscription(job, callback)
    with _lock:
        _subscriptions.append(subscription)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="lazynb-jobs", daemon=True)
            _thread.start()
    _news.set()
    return subscription.end


def _run() -> None:
    global _thread  # noqa: PLW0603
    while True:
        _news.clear()
        with _lock:
            current = list(_subscriptions)
            if not current:
                _thread = None
                return
        for subscription in current:
            subscription.look()
        _news.wait(BUSY_PERIOD if any(one.busy for one in current) else IDLE_PERIOD)
