"""Whether a service is ready: it is when it answered a real request.

The request is sent again and again from a thread, first every few milliseconds: most engines listen well
before they can answer.
"""

from __future__ import annotations

import http.client
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from lazynb.jobs import ports

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynb.jobs.spec import Probe

REFUSALS = frozenset({400, 401, 403, 422})
"""Answers that more time does not change."""
REFUSAL_PATIENCE = 8.0
FIRST_TIMEOUT, LONGEST_TIMEOUT = (
    30.0,
    480.0,
)  # seconds for one answer: a first one may compile kernels
SHORTEST_PAUSE, LONGEST_PAUSE = 0.03, 0.5
_BODY_LIMIT = 2000


class ReadinessProbe:
    """Asks a service until it answers.

    Parameters
    ----------
    probe : Probe
        The request.
    port : int
        Where.
    key : str
        The key of the service.
    notify : callable
        Called from the thread when `ready` or `refused` has changed.
    """

    def __init__(self, probe: Probe, port: int, key: str, notify: Callable[[], None]) -> None:
        self.ready = False
        self.refused = False
        self.last_answer = ""
        self._probe = probe
        self._port = port
        self._key = key
        self._notify = notify
        self._over = threading.Event()
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    def cancel(self) -> None:
        """Ask no more."""
        self._over.set()

    def _run(self) -> None:
        timeout, pause = FIRST_TIMEOUT, SHORTEST_PAUSE
        refused_since = 0.0
        while not self._over.wait(pause):
            pause = min(pause * 1.15, LONGEST_PAUSE)
            try:
                status, text = self._ask(timeout)
            except TimeoutError:
                self.last_answer = f"no answer within {timeout:.0f} s"
                timeout = min(2 * timeout, LONGEST_TIMEOUT)
                continue
            except (OSError, http.client.HTTPException):  # not listening yet, or not HTTP yet
                refused_since = 0.0
                continue
            self.last_answer = f"HTTP {status} {text}".strip()
            if 200 <= status < 300:  # noqa: PLR2004
                self.ready = True
                break
            if status not in REFUSALS:
                refused_since = 0.0
            elif not refused_since:
                refused_since = time.monotonic()
            elif time.monotonic() - refused_since > REFUSAL_PATIENCE:
                self.refused = True
                break
        self._notify()

    def _ask(self, timeout: float) -> tuple[int, str]:
        connection = http.client.HTTPConnection(ports.HOST, self._port, timeout=timeout)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        try:
            connection.request(
                "POST", self._probe.path, msgspec.json.encode(self._probe.body), headers
            )
            answer = connection.getresponse()
            text = answer.read(_BODY_LIMIT).decode("utf-8", "replace")
            return answer.status, " ".join(text.split()).replace(self._key, "***")
        finally:
            connection.close()
