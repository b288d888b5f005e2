"""What this process asks of its servers at this moment: requests under way, tokens of the last seconds.

Where an endpoint names a file, its time is the last moment at which a request was under way: whoever watches an idle
service, in whichever process, reads it there. Requests run on the client's loop alone, so nothing here is locked.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynb.client.endpoint import Endpoint

BEAT = 1.0
"""Seconds between two marks of a request that goes on."""
WINDOW = 5.0
"""Seconds over which the rate is taken."""

_places: dict[str, Activity] = {}


class Activity:
    """What goes on between this process and one server."""

    def __init__(self) -> None:
        self.running = 0
        self._made: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, tokens: int) -> None:
        """Count tokens that just came."""
        if tokens:
            now = time.monotonic()
            self._made.append((now, tokens))
            while self._made[0][0] < now - WINDOW:
                self._made.popleft()

    @property
    def rate(self) -> float:
        """Tokens per second over the last seconds."""
        now = time.monotonic()
        recent = [item for item in tuple(self._made) if item[0] >= now - WINDOW]
        if not recent:
            return 0.0
        return sum(count for _, count in recent) / max(now - recent[0][0], 0.1)

    def begin(self, used: str) -> None:
        """Take note of a request."""
        self.running += 1
        if self._timer is None:
            self._beat(used)

    def end(self, used: str) -> None:
        """Take note of its end."""
        self.running -= 1
        if not self.running and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            mark(used)

    def _beat(self, used: str) -> None:
        mark(used)
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat, used)


def mark(used: str) -> None:
    """Write down that a service is used at this moment."""
    if used:
        with suppress(OSError):  # its folder is gone
            Path(used).touch(mode=0o600)


def of(url: str) -> Activity:
    """Return what goes on between this process and the server at a url."""
    return _places.get(url) or _places.setdefault(url, Activity())


@contextmanager
def counted(endpoint: Endpoint) -> Iterator[None]:
    """Count a request while it is under way."""
    one = of(endpoint.url)
    one.begin(endpoint.used)
    try:
        yield
    finally:
        one.end(endpoint.used)
