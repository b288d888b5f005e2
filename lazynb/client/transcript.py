"""A text that grows, and when it did.

It is kept as the chunks that came with the offsets at which they end, so that "what is new since
character 4,000" costs what is new.
"""

from __future__ import annotations

import time
from bisect import bisect_right

import msgspec


class Timings(msgspec.Struct):
    """When things happened, in seconds since the epoch; None: not yet."""

    queued: float
    """The request was sent, or, before that, the answer was made."""
    first_token: float | None = None
    finished: float | None = None

    @property
    def seconds(self) -> float:
        """From the request to the end, or to now."""
        return (self.finished or time.time()) - self.queued


class Transcript:
    """A text that grows: its chunks, and the offset at which each ends."""

    def __init__(self) -> None:
        self.chunks: list[str] = []
        self._ends: list[int] = []
        self._joined = ("", 0)  # the text of the first so many chunks

    def append(self, chunk: str) -> None:
        """Add a chunk; one thread does, any thread may read meanwhile."""
        self.chunks.append(chunk)
        self._ends.append(self.size + len(chunk))

    @property
    def size(self) -> int:
        """Characters so far."""
        return self._ends[-1] if self._ends else 0

    @property
    def text(self) -> str:
        """All of it."""
        text, count = self._joined
        if count < len(self.chunks):
            new = self.chunks[count:]
            text, count = text + "".join(new), count + len(new)
            self._joined = text, count
        return text

    def since(self, offset: int) -> str:
        """Return the text from a character on."""
        first = bisect_right(self._ends, offset)
        new = self.chunks[first:]
        if not new:
            return ""
        start = self._ends[first - 1] if first else 0
        new[0] = new[0][offset - start :]
        return "".join(new)
