"""What a source of weights is: a place on this machine, or one to fetch them from.

A source is one module with one class: `path`, `folders`, `package`; the hubs are further ones.
`resolve` asks them in order and takes the first answer.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from lazynb.hub.catalogue import Entry
from lazynb.hub.model import ModelType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynb.hub.model import Model


class Wanted(msgspec.Struct, frozen=True):
    """A name, with what the catalogue and the user say about it."""

    text: str
    """As the user wrote it."""
    entry: Entry | None
    type: ModelType | None
    """The user's word on the type; None: to be found out."""

    @property
    def name(self) -> str:
        """The catalogue's spelling, or the user's own."""
        return self.entry.name if self.entry else self.text


class Report(Protocol):
    """How a source tells of its progress; `done` and `total` in bytes."""

    def __call__(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Show what is being done."""


class Source(Protocol):
    """A place where weights lie or come from."""

    @property
    def name(self) -> str:
        """What `Model.source` says of its models."""

    def find(self, wanted: Wanted) -> Iterator[Model]:
        """Yield the forms in which the source has the model, without asking the network."""

    def looked(self, wanted: Wanted) -> list[str]:
        """Say where it was looked, for the error of a model that is nowhere."""

    def fetch(self, model: Model, report: Report) -> None:
        """Bring the weights to `model.path`; called with the machine's lock on that path held."""


class ProgressLines:
    """Report progress as the lines that a job's supervisor reads; at most ten a second."""

    def __init__(self) -> None:
        self._last = ("", 0.0)

    def __call__(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Print one line, unless the same was said a moment ago."""
        said, when = self._last
        now = time.monotonic()
        if text == said and now - when < 0.1 and done != total:  # noqa: PLR2004
            return
        self._last = (text, now)
        line: dict[str, Any] = {"text": text}
        if done is not None:
            line |= {"done": done, "total": total}
        sys.stdout.write(f"@progress {msgspec.json.encode(line).decode()}\n")
        sys.stdout.flush()
