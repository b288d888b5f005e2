"""What a flow that runs knows, and what it asks for.

A flow's logic is a generator, its *plan*: it yields a `Call` of a step, or a `Fork` of several at
once, and is sent what comes out. So each flow is written once, and runs with threads or on an
event loop. While it runs, a `Frame` holds its input and the outputs of its steps; frames form a
chain from a nested flow to the outermost one, on which `bind` looks up what `p.input` and
`p.output('f1')` stand for.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - dataclasses read their annotations
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lazynb.flow.trace import Trace  # noqa: TC001
from lazynb.flow.values import Arguments, gather

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    Plan = Generator["Call | Fork", Any, Any]


@dataclass(slots=True)
class Step:
    """One item of a flow, under the name that the user gave it ('' for none)."""

    item: Any
    name: str = ""
    index: int = -1  # conditions have no place of their own: they are not shown
    title: str = ""  # what a picture says where there is no name
    automatic: bool = False  # it was added because its `with` stands inside the flow's

    @property
    def label(self) -> str:
        """What to call the step: its name, or that of its function."""
        return self.name or self.title or label(self.item)


@dataclass(slots=True)
class Frame:
    """A run of a flow."""

    key: object
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    parent: Frame | None
    trace: Trace
    outputs: dict[int, Any] = field(default_factory=dict)

    @property
    def input(self) -> Any:
        """The one value that went in, or a package of several."""
        return gather(self.args)

    def path(self, *names: str) -> str:
        """Return where this is, from the outermost flow on."""
        if self.parent is not None:
            return self.parent.path(self.name, *names)
        return " > ".join((self.name, *names))


@dataclass(slots=True)
class Call:
    """Ask for one step to be called.

    `prepare` makes the arguments where that runs the user's code (the formatter of a graph's edge), so that
    its errors are the step's.
    """

    step: Step
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[], Arguments] | None = None
    place: int = 0


class Fork:
    """Ask for several calls at once; what comes out is sent back in their order."""

    def __init__(self, calls: Iterable[Call], limit: int) -> None:
        self.calls = list(calls)
        self.limit = limit
        self.values: list[Any] = [None] * len(self.calls)
        for place, call in enumerate(self.calls):
            call.place = place

    def done(self, call: Call, value: Any) -> Iterable[Call]:
        """Take what a call returned, in any thread; returns the calls that can begin now."""
        self.values[call.place] = value
        return ()


class Runnable:
    """What has a plan: a flow."""

    _key: object

    def _plan(self, frame: Frame) -> Plan:
        raise NotImplementedError


current: ContextVar[Frame | None] = ContextVar("lazynb_frame", default=None)


def label(item: Any) -> str:
    """Return the name of a function, or of an object's class."""
    name = getattr(item, "__name__", None) or type(item).__name__
    return str(name).strip("<>")
