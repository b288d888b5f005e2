"""What a service works on, asked from itself: requests under way, and counters of tokens.

Two formats are read: llama.cpp's list of slots, and the text that Prometheus reads, which vLLM, LMDeploy and lazynb's
own servers write. A service that does not answer in time has no load that anybody knows.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from lazynb.jobs import ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lazynb.jobs.job import Job

LARGEST = 1 << 20
RUNNING = frozenset({"num_requests_running", "num_requests_waiting", "requests_running"})
TOKENS = frozenset({"generation_tokens_total", "tokens_total"})
OTHERS = frozenset({"prompt_tokens_total", "requests_total"})
"""What changes with each request, whether or not tokens are made."""
_SAMPLE = re.compile(
    r"^\w+:(?P<name>\w+)(?P<labels>\{[^}]*\})? (?P<value>[-+.\deE]+)", re.MULTILINE
)


@dataclass(frozen=True)
class Load:
    """What a service worked on at one moment."""

    running: int
    """Requests under way, those that wait included."""
    tokens: dict[str, float]
    """Tokens made, by counter; a counter that is new began at 0."""
    others: dict[str, float]
    """Other counters: as long as none moves, nobody used the service."""
    at: float
    """When, on the monotonic clock."""

    def rate(self, before: Load) -> float:
        """Return the tokens per second since an earlier look."""
        made = sum(max(0.0, n - before.tokens.get(name, 0.0)) for name, n in self.tokens.items())
        return made / max(self.at - before.at, 1e-3)

    def moved(self, before: Load | None) -> bool:
        """Say whether the service worked now, or between an earlier look and this one."""
        if before is None:
            return self.running > 0
        return self.running > 0 or (self.tokens, self.others) != (before.tokens, before.others)


def ask(port: int, path: str, key: str, timeout: float) -> Load | None:
    """Ask a service once; None when it does not answer in time. One without counters has none that move."""
    connection = http.client.HTTPConnection(ports.HOST, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        text = answer.read(LARGEST)
        return read(text if answer.status == http.HTTPStatus.OK else b"")
    except TimeoutError:
        return None
    except (OSError, http.client.HTTPException, ValueError):
        return read(b"")
    finally:
        connection.close()


def read(text: bytes) -> Load:
    """Read what a service said.

    Raises
    ------
    ValueError
        In neither of the two formats.
    """
    if text.lstrip().startswith(b"["):
        return _slots(msgspec.json.decode(text, type=list[dict[str, Any]]))
    running, tokens, others = 0.0, {}, {}
    for sample in _SAMPLE.finditer(text.decode("utf-8", "replace")):
        name, value = sample["name"], float(sample["value"])
        if name in RUNNING:
            running += value
        elif name in TOKENS:
            tokens[name + (sample["labels"] or "")] = value
        elif name in OTHERS:
            others[name + (sample["labels"] or "")] = value
    return Load(int(running), tokens, others, time.monotonic())


def _slots(slots: list[dict[str, Any]]) -> Load:
    tokens: dict[str, float] = {}
    others: dict[str, float] = {}
    for slot in slots:
        task = slot.get("id_task", -1)  # the last one, when it works on none
        others[str(slot.get("id"))] = float(task if isinstance(task, int) else -1)
        if slot.get("is_processing"):
            tokens[f"{slot.get('id')}/{task}"] = sum(
                float(item.get("n_decoded", 0)) for item in slot.get("next_token") or []
            )
    running = sum(bool(slot.get("is_processing")) for slot in slots)
    return Load(running, tokens, others, time.monotonic())


def loads(jobs: Iterable[Job], timeout: float) -> dict[str, Load]:
    """Ask services all at once; those that did not answer in time are left out.

    Parameters
    ----------
    jobs : iterable of Job
        Of any kind.
    timeout : float
        Seconds for all of them together.

    Returns
    -------
    dict of str to Load
        By the ids of the jobs.
    """
    found: dict[str, Load] = {}
    asking = []
    for job in jobs:
        state, command = job.state, job.command
        if state.phase == "ready" and state.port and command and command.load:
            words = (state.port, command.load, job.key, timeout)
            asking.append(threading.Thread(target=_note, args=(found, job.id, words), daemon=True))
            asking[-1].start()
    deadline = time.monotonic() + timeout
    for thread in asking:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)


def _note(found: dict[str, Load], id_: str, words: tuple[int, str, str, float]) -> None:
    if load := ask(*words):
        found[id_] = load


class Watch:
    """Looks at one service now and then, from a thread; tells when it was at work.

    Parameters
    ----------
    look : callable
        Asks it.
    period : float
        Seconds between two looks.
    at_work : callable
        Called after a look that saw work, or what work left behind.
    """

    def __init__(
        self, look: Callable[[], Load | None], period: float, at_work: Callable[[], None]
    ) -> None:
        self._look = look
        self._period = period
        self._at_work = at_work
        self._last: Load | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="load", daemon=True).start()

    def cancel(self) -> None:
        """Look no more."""
        self._over.set()

    def busy(self) -> bool:
        """Look now; say whether it works or worked since the last look. One that does not answer may be at work."""
        with self._lock:
            load = self._look()
            if load is None:
                return True
            before, self._last = self._last, load
            return load.moved(before)

    def _run(self) -> None:
        while not self._over.wait(self._period):
            with suppress(OSError):
                if self.busy():
                    self._at_work()
