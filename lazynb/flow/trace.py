"""What the last run of a flow did: which step ran, how long, and what went in and out.

A trace holds counts and short texts, never the values, so that it keeps nothing alive and stays
small however often a loop turns.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from reprlib import Repr
from typing import Any

TEXT_LIMIT = 200
_lock = threading.Lock()  # one for all: it is held for a few additions
_short = Repr()
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 4
_short.maxstring = _short.maxother = TEXT_LIMIT
_CHEAP = (str, int, float, bool, bytes, list, tuple, set, frozenset, dict, type(None))


def summary(value: Any) -> str:
    """Return a short text for a value: its shortened repr, or its type and shape."""
    try:
        shape = None if isinstance(value, _CHEAP) else getattr(value, "shape", None)
        if isinstance(shape, tuple):  # an array's or a table's repr is long and slow
            return f"{type(value).__name__} {' × '.join(map(str, shape))}"
        return _short.repr(value)[: TEXT_LIMIT + 50]
    except Exception:  # noqa: BLE001 - a value with a broken repr must not break the flow
        return f"<{type(value).__name__}>"


def arguments_summary(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return a short text for what a step is called with."""
    texts = [summary(value) for value in args[:4]]
    texts += ["…"] * (len(args) > 4)  # noqa: PLR2004
    texts += [f"{name}={summary(value)}" for name, value in kwargs.items()]
    return ", ".join(texts)


@dataclass(slots=True)
class StepTrace:
    """One step of the last run.

    Attributes
    ----------
    runs : int
        How often it ended (`loop` and `warp` run a step more than once).
    running : int
        How many are under way.
    seconds : float
        Their time together.
    input, output : str
        What went into the last one, and what came out of it.
    error : str
        The type and text of the exception that ended it, or ''.
    inside : Trace or None
        The trace of a step that is a flow.
    """

    runs: int = 0
    running: int = 0
    seconds: float = 0.0
    input: str = ""
    output: str = ""
    error: str = ""
    inside: Trace | None = None

    def begin(self) -> float:
        """Note that a run begins; returns the time of it."""
        with _lock:
            self.running += 1
        return time.perf_counter()

    def end(self, begun: float, taken: str, value: Any, error: BaseException | None) -> None:
        """Note that a run ended, and what it had been called with."""
        seconds = time.perf_counter() - begun
        self.input = taken
        if error is None:
            self.output = summary(value)
        else:
            self.error = f"{type(error).__name__}: {error}"[:TEXT_LIMIT].rstrip(": ")
        with _lock:
            self.running -= 1
            self.runs += 1
            self.seconds += seconds


@dataclass(slots=True)
class Trace:
    """The last run of a flow.

    Attributes
    ----------
    whole : StepTrace
        The flow itself.
    steps : dict of int to StepTrace
        Those of its steps that ran, by their place in the flow.
    started : float
        When it began, in seconds since the epoch.
    """

    whole: StepTrace = field(default_factory=StepTrace)
    steps: dict[int, StepTrace] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    def step(self, index: int) -> StepTrace:
        """Return the trace of one step, made on its first run."""
        return self.steps.get(index) or self.steps.setdefault(index, StepTrace())

    def inside(self, index: int) -> Trace:
        """Return the trace of a step that is a flow itself."""
        step = self.step(index)
        with _lock:
            step.inside = step.inside or Trace()
        return step.inside
