"""The losses of a run, read from its log as it grows, in a few hundred points however long the run is.

Points are averages over `stride` logging steps. When there are too many, neighbours are merged and the stride
doubles, so that a step costs the same on average in a run of any length.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POINTS = 200
"""Of the losses; the smoothed line has as many."""
FEW = 60
"""Points of the evaluations, and of the learning rate: 2 · 200 + 2 · 60 are fewer than 600."""
SMOOTHING = 0.9
"""Weight of the past in the smoothed line, for a point of one logging step out of many."""

Point = tuple[float, float]


def rows(path: Path) -> list[dict[str, Any]]:
    """Return what a trainer logged, a dict for each entry; a line that is half written is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    return list(_parsed(text.splitlines()))


def _parsed(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "current_steps" in entry:
            yield entry


class LogReader:
    """Reads what is new in a trainer's log.

    Parameters
    ----------
    path : Path
        `trainer_log.jsonl`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """Return the entries that came since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            return []
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return list(_parsed([line.decode("utf-8", "replace") for line in lines]))


@dataclass
class Series:
    """Losses over steps, thinned out.

    Parameters
    ----------
    limit : int
        The most points there are.
    """

    limit: int = POINTS
    stride: int = 1
    points: list[Point] = field(default_factory=list)
    _pending: list[Point] = field(default_factory=list)

    def add(self, step: float, value: float) -> None:
        """Take one more; a step that lies back begins anew from there, as a resumed run does."""
        while self._last_step >= step and (self.points or self._pending):
            (self._pending or self.points).pop()
        self._pending.append((step, value))
        if len(self._pending) >= self.stride:
            self.points.append(_mean(self._pending))
            self._pending.clear()
        if len(self.points) > self.limit:
            pairs = zip(self.points[::2], self.points[1::2], strict=False)
            odd = self.points[len(self.points) // 2 * 2 :]
            self.points = [_mean(list(pair)) for pair in pairs] + odd
            self.stride *= 2

    @property
    def _last_step(self) -> float:
        last = self._pending or self.points
        return last[-1][0] if last else -math.inf

    @property
    def shown(self) -> list[Point]:
        """All points, the unfinished one among them."""
        return [*self.points, _mean(self._pending)] if self._pending else self.points

    @property
    def smoothed(self) -> list[Point]:
        """The points as an exponential moving average."""
        weight = SMOOTHING if len(self.points) > 50 else 0.6  # noqa: PLR2004 - few points, little noise to hide
        result: list[Point] = []
        for step, value in self.shown:
            past = result[-1][1] if result else value
            result.append((step, weight * past + (1 - weight) * value))
        return result


def _mean(points: list[Point]) -> Point:
    return (
        sum(step for step, _ in points) / len(points),
        sum(value for _, value in points) / len(points),
    )


class Curve:
    """What a run's log says: losses, evaluations, and how it stands.

    Parameters
    ----------
    path : Path
        `trainer_log.jsonl`; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._reader = LogReader(path)
        self.loss = Series()
        self.evaluated = Series(FEW)
        self.rate = Series(FEW)
        self.latest: dict[str, Any] = {}
        """The latest value of each kind: `current_steps`, `total_steps`, `loss`, `lr`, `remaining_time`, …"""

    def update(self) -> bool:
        """Read what is new; return whether there was any."""
        entries = self._reader.read()
        for entry in entries:
            step = entry["current_steps"]
            for series, key in (
                (self.loss, "loss"),
                (self.evaluated, "eval_loss"),
                (self.rate, "lr"),
            ):
                value = entry.get(key)
                if isinstance(value, (int, float)) and math.isfinite(value):
                    series.add(step, value)
            self.latest |= entry
        return bool(entries)
