"""Who listens to a call, and who may stop it.

A flow runs its steps in many threads and tasks, and a step does not know who called it. Two
context variables carry what it needs to know: the *sink* that takes the text while it is made (a
`StreamCallHelper` puts one there), and the *scope* that can cancel what runs (an early exit from
a stream, a failed branch, an interrupt). Every thread and task of a flow gets a copy of the
caller's context, so two calls at the same time never see each other's.

    sink = current_sink()
    if sink is not None:
        sink.push("Hello", source="chat", color="green")
    with cancelling(answer.cancel):
        answer.wait()
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, Self

from lazynb.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Kind = Literal["text", "reasoning", "prefix", "suffix"]

COLORS = {
    "black": 30,
    "red": 31,
    "green": 32,
    "yellow": 33,
    "blue": 34,
    "magenta": 35,
    "cyan": 36,
    "white": 37,
    "grey": 90,
    "gray": 90,
}
_DIM = 2


def check_color(color: str) -> str:
    """Return the color's name, or raise an OptionError that lists the near ones."""
    if color and color not in COLORS:
        near = get_close_matches(color, COLORS, n=3) or list(COLORS)
        raise OptionError(f"There is no color {color!r}", hint=f"Did you mean: {', '.join(near)}?")
    return color


class Chunk(str):
    """A piece of streamed text.

    It is plain text wherever it is used as a string (`''.join`, `+`, f-strings, files); only `print(chunk)` and
    `str(chunk)` show the colours, as ANSI codes.

    Attributes
    ----------
    kind : 'text', 'reasoning', 'prefix' or 'suffix'
        What it is; 'reasoning' is what a model thinks before it answers.
    source : str
        Who made it.
    color : str
        Its colour, or ''.
    """

    __slots__ = ("color", "kind", "source")

    kind: Kind
    source: str
    color: str

    def __new__(
        cls, text: str = "", kind: Kind = "text", source: str = "", color: str = ""
    ) -> Self:
        """Make a chunk; without more than a text it is plain."""
        chunk = super().__new__(cls, text)
        chunk.kind = kind
        chunk.source = source
        chunk.color = color
        return chunk

    def __str__(self) -> str:
        code = COLORS.get(self.color) or (_DIM if self.kind == "reasoning" else 0)
        plain = str.__str__(self)
        return f"\x1b[{code}m{plain}\x1b[0m" if code and plain else plain

    def __format__(self, spec: str) -> str:
        return format(str.__str__(self), spec)

    def __reduce__(self) -> tuple[type[Chunk], tuple[str, Kind, str, str]]:
        return Chunk, (str.__str__(self), self.kind, self.source, self.color)


class Scope:
    """What can be cancelled together; a scope made inside another one is cancelled with it."""

    def __init__(self) -> None:
        self.cancelled = False
        self._callbacks: dict[object, Callable[[], object]] = {}
        self._lock = threading.Lock()
        parent = _scope.get()
        self.leave: Callable[[], None] = parent.on_cancel(self.cancel) if parent else _nothing

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back once when cancelled, or now if that has happened; returns what takes the callback back."""
        key = object()
        with self._lock:
            if not self.cancelled:
                self._callbacks[key] = callback
                return lambda: self._forget(key)
        callback()
        return _nothing

    def cancel(self) -> None:
        """Cancel everything that is registered here; the second time does nothing."""
        with self._lock:
            self.cancelled = True
            callbacks, self._callbacks = [*self._callbacks.values()], {}
        for callback in callbacks:
            with suppress(Exception):  # one that fails must not keep the others from being called
                callback()

    def check(self) -> None:
        """Raise CancelledError once the scope is cancelled."""
        if self.cancelled:
            raise CancelledError

    def _forget(self, key: object) -> None:
        with self._lock:
            self._callbacks.pop(key, None)


class Sink:
    """Takes the chunks of one call, from any of its threads.

    Parameters
    ----------
    deliver : callable
        Gets every chunk, in the thread that pushed it.
    """

    def __init__(self, deliver: Callable[[Chunk], object]) -> None:
        self._deliver = deliver
        self.scope = Scope()

    def push(self, text: str, *, kind: Kind = "text", source: str = "", color: str = "") -> None:
        """Hand over a piece of text.

        Raises
        ------
        CancelledError
            Nobody listens any more: what makes the text should stop.
        """
        self.scope.check()
        if text:
            self._deliver(Chunk(text, kind, source, color))

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back when the listener leaves, or the part of the flow that runs here is cancelled."""
        return (_scope.get() or self.scope).on_cancel(callback)


_sink: ContextVar[Sink | None] = ContextVar("lazynb_sink", default=None)
_scope: ContextVar[Scope | None] = ContextVar("lazynb_scope", default=None)


def current_sink() -> Sink | None:
    """Return the sink of the call that runs here, or None when nobody listens."""
    return _sink.get()


def current_scope() -> Scope | None:
    """Return the scope that can cancel what runs here, or None."""
    return _scope.get()


@contextmanager
def collecting(sink: Sink) -> Iterator[Sink]:
    """Make `sink` the one that every call in the block pushes to."""
    token = _sink.set(sink)
    try:
        with within(sink.scope):
            yield sink
    finally:
        _sink.reset(token)


def enter(scope: Scope) -> None:
    """Make `scope` the one that cancels what runs in the current context from now on."""
    _scope.set(scope)


@contextmanager
def within(scope: Scope) -> Iterator[Scope]:
    """Make `scope` the one that cancels what runs in the block."""
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


@contextmanager
def cancelling(callback: Callable[[], object]) -> Iterator[None]:
    """Have `callback` called when the surrounding flow or stream is cancelled during the block."""
    scope = _scope.get()
    forget = scope.on_cancel(callback) if scope else _nothing
    try:
        yield
    finally:
        forget()


def _nothing() -> None:
    """Stand for a registration that needs no undoing."""
