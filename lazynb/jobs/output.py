"""What a program's output means: lines for the log, progress, and what it says about its own failure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lazynb.jobs.log import LineReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.jobs.log import BoundedLog
    from lazynb.jobs.record import Record
    from lazynb.jobs.spec import ProgressRule

T = TypeVar("T")


class _Progress(msgspec.Struct):
    text: str = ""
    done: float | None = None
    total: float | None = None


class _Failure(msgspec.Struct):
    cause: str
    hint: str = ""


class Output:
    """Takes the output of one program apart.

    Parameters
    ----------
    log : BoundedLog
        Where its lines go.
    record : Record
        Where its progress goes.
    rules : sequence of ProgressRule
        How its lines become progress.
    secret : str
        Text that is never written: the key of the service.
    """

    def __init__(
        self, log: BoundedLog, record: Record, rules: Sequence[ProgressRule], secret: str
    ) -> None:
        self.failure: tuple[str, str] | None = None
        """Cause and hint, when the program told them itself."""
        self.quiet = False
        """Whether its progress is of no interest: a service that is ready."""
        self._log = log
        self._record = record
        self._rules = [(re.compile(rule.pattern), rule.text) for rule in rules]
        self._reader = LineReader(secret)

    def feed(self, data: bytes) -> None:
        """Take the next piece; an empty one is the end."""
        kept = []
        for line, stays in self._reader.feed(data) if data else self._reader.end():
            if line.startswith("@progress "):
                self._take_progress(_decode(line, _Progress))
            elif line.startswith("@failed "):
                self._take_failure(_decode(line, _Failure))
            else:
                if not self.quiet:
                    self._apply_rules(line)
                if stays:
                    kept.append(line)
        self._log.add(kept)

    def _take_progress(self, progress: _Progress | None) -> None:
        if progress is not None:
            self._record.note(progress.text, progress.done, progress.total)

    def _take_failure(self, failure: _Failure | None) -> None:
        if failure is not None:
            self.failure = failure.cause, failure.hint

    def _apply_rules(self, line: str) -> None:
        for pattern, text in self._rules:
            if match := pattern.search(line):
                groups = {name: found or "" for name, found in match.groupdict().items()}
                for name, found in groups.items():
                    text = text.replace(f"{{{name}}}", found)  # noqa: PLW2901
                self._record.note(text, _number(groups, "done"), _number(groups, "total"))
                return


def _decode(line: str, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(line.partition(" ")[2], type=kind)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


def _number(groups: dict[str, Any], name: str) -> float | None:
    try:
        return float(groups[name])
    except (KeyError, ValueError):
        return None
