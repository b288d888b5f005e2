"""What a program writes, made fit to be kept and shown.

Bytes arrive in pieces of any size. They become lines without colours; a progress bar that redraws itself
with carriage returns becomes its last state. The file is rotated, so that it never takes more than twice its
limit, and the key of the service does not get into it.
"""

from __future__ import annotations

import os
import re
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynb.jobs.folder import JobFolder

LONGEST_LINE = 64 * 1024
REMEMBERED_LINES = 400
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class LineReader:
    """Turns bytes into lines.

    A segment that ends with a carriage return is passing: the next one is drawn over it.

    Parameters
    ----------
    secret : str
        Text that never gets through: the key of the service.
    """

    def __init__(self, secret: str = "") -> None:
        self._secret = secret
        self._rest = b""
        self._drawn = ""

    def feed(self, data: bytes) -> Iterator[tuple[str, bool]]:
        """Yield each line, or segment of one, with whether it stays (True) or passes (False)."""
        *segments, self._rest = re.split(rb"(?<=[\r\n])", self._rest + data)
        if len(self._rest) > LONGEST_LINE:
            segments, self._rest = [*segments, self._rest], b""
        for segment in segments:
            text = self._clean(segment)
            if segment.endswith(b"\r"):
                self._drawn = text or self._drawn
                yield text, False
            else:
                yield text or self._drawn, True
                self._drawn = ""

    def end(self) -> Iterator[tuple[str, bool]]:
        """Yield what is left when the program closed its output."""
        if self._rest or self._drawn:
            yield from self.feed(b"\n")

    def _clean(self, segment: bytes) -> str:
        text = _ANSI.sub("", segment.decode("utf-8", "replace"))
        text = _CONTROL.sub("", text).rstrip()
        return text.replace(self._secret, "***") if self._secret else text


class BoundedLog:
    """The log file of a job.

    Parameters
    ----------
    folder : JobFolder
        Where it lies.
    limit : int
        Size at which the file is rotated, in bytes.
    """

    def __init__(self, folder: JobFolder, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self.lines: deque[str] = deque(maxlen=REMEMBERED_LINES)
        """The last lines, for a diagnosis."""

    def add(self, lines: list[str]) -> None:
        """Write lines; they are dropped, not fatal, when the disk is full."""
        if not lines:
            return
        self.lines.extend(lines)
        with suppress(OSError):
            self._folder.append(self._folder.log, "".join(f"{line}\n" for line in lines).encode())
            if self._folder.log.stat().st_size > self._limit:
                self._folder.log.replace(self._folder.old_log)

    def discard(self) -> None:
        """Give its space back. The files stay: they may be open elsewhere, which would hold the space."""
        for path in (self._folder.log, self._folder.old_log):
            with suppress(OSError):
                os.truncate(path, 0)


def tail(folder: JobFolder, count: int) -> list[str]:
    """Return the last lines of a job's log."""
    lines: deque[str] = deque(maxlen=max(count, 0))
    for path in (folder.old_log, folder.log):
        with suppress(OSError), path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LONGEST_LINE - 500 * count))
            lines.extend(file.read().decode("utf-8", "replace").splitlines())
    return list(lines)
