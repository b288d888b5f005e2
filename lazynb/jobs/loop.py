"""The supervisor's loop: file descriptors, signals and other threads, seen one after the other.

A signal or a thread writes a byte to a pipe, so that waiting for anything is waiting for a file descriptor.
"""

from __future__ import annotations

import os
import selectors
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """Calls back when a file descriptor can be read. Made in the main thread, once per process."""

    def __init__(self) -> None:
        self.terminated = False
        """Whether SIGTERM was received."""
        self._selector = selectors.DefaultSelector()
        self._waking, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.add(self._waking, self._drain)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            # A handler that does nothing, rather than SIG_IGN, which the program would inherit.
            signal.signal(number, lambda *_: None)

    def add(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Call back whenever this can be read, or its other end is closed."""
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def remove(self, descriptor: int) -> None:
        """Look at it no more."""
        with suppress(KeyError):
            self._selector.unregister(descriptor)

    def wake(self) -> None:
        """End a wait; for other threads."""
        with suppress(BlockingIOError):
            os.write(self._wakeup, b"\0")

    def wait(self, timeout: float) -> None:
        """Wait until something happens, for so many seconds at most, and call back."""
        for key, _ in self._selector.select(timeout):
            key.data()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._waking, 4096)

    def _terminate(self, *_: object) -> None:
        self.terminated = True
