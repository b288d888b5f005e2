"""How a job stands, written down for everybody who reads its folder.

A new phase is written at once, progress at most ten times a second. A full disk does not end a service that
runs: the log gives its space back, and the state is written again and again until it fits.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lazynb.jobs.spec import JobState, Phase

if TYPE_CHECKING:
    from lazynb.jobs.folder import JobFolder
    from lazynb.jobs.log import BoundedLog
    from lazynb.jobs.spec import Owner

PERIOD = 0.1


class Record:
    """The state of a job, in its supervisor.

    Parameters
    ----------
    folder : JobFolder
        Where it is written.
    log : BoundedLog
        What is given up first when the disk is full.
    supervisor : Owner
        This process.
    """

    def __init__(self, folder: JobFolder, log: BoundedLog, supervisor: Owner) -> None:
        self.state = JobState(since=time.time(), supervisor=supervisor)
        self._folder = folder
        self._log = log
        self._changed = False
        self._written = 0.0
        self._save()

    def enter(self, phase: Phase, text: str = "", **facts: Any) -> None:
        """Begin a phase.

        Parameters
        ----------
        phase : str
            The phase.
        text : str
            What is being done, in words.
        **facts
            Other fields of the state.
        """
        self.note(text, **facts)
        self.state.phase = phase
        self.state.since = time.time()
        event = {"time": self.state.since, "phase": phase, "text": text or facts.get("cause", "")}
        with suppress(OSError):  # the state is what counts
            self._folder.add_event(event)
        self._save()

    def note(
        self, text: str = "", done: float | None = None, total: float | None = None, **facts: Any
    ) -> None:
        """Change what is said about the present phase; written soon."""
        for name, value in {"text": text, "done": done, "total": total, **facts}.items():
            setattr(self.state, name, value)
        self._changed = True

    def flush(self) -> float | None:
        """Write what has changed, if it is due; return after how many seconds to come again, or None."""
        if self._changed and time.monotonic() - self._written >= PERIOD:
            self._save()
        return PERIOD if self._changed else None

    def _save(self) -> None:
        self._written = time.monotonic()
        try:
            self._folder.write_state(self.state)
        except OSError:
            self._log.discard()
            try:
                self._folder.write_state(self.state)
            except OSError:
                self._changed = True
                return
        self._changed = False
