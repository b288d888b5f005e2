"""`Flow`: what all flows have in common, and how they are built.

    with pipeline() as p:
        p.search = search                      # an attribute is a step
        with parallel().sum as p.rank:         # a flow inside a flow
            p.rank.a = rank_a
            p.rank.b = rank_b
        p.answer = model | bind(_0, question=p.input)
    p("What is a monad?")

or `pipeline(search, parallel(rank_a, rank_b).sum, …)`. Any callable is a step: functions,
modules, other flows, and classes of callable objects, which are made on the spot.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from difflib import get_close_matches
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Self

from lazynb.errors import FlowError
from lazynb.flow.arun import arun_alone
from lazynb.flow.bound import Reference, bind
from lazynb.flow.chain import Chainable
from lazynb.flow.frame import Runnable, Step
from lazynb.flow.run import run
from lazynb.flow.trace import Trace

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_building: ContextVar[tuple[Flow, ...]] = ContextVar("lazynb_building", default=())


class Flow(Chainable, Runnable):
    """A composition of steps that is called like one of them.

    Parameters
    ----------
    *steps : callable
        The steps, or one list of them.
    **named : callable
        The steps by name.

    Raises
    ------
    FlowError
        A step is not callable, or its name is taken.
    """

    _accepts_steps = True

    def __init__(self, *steps: Any, **named: Any) -> None:
        self._steps: list[Step] = []
        self._key: object = object()
        self._builder: FrameType | None = None  # where it is open: the frame of its `with`
        self._last_run: Trace | None = None
        if len(steps) == 1 and isinstance(steps[0], (list, tuple)):
            steps = tuple(steps[0])
        for item in steps:
            self._add("", item)
        for name, item in named.items():
            self._add(name, item)

    # Calls.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow; a `KeyboardInterrupt` stops waiting and cancels what can be cancelled.

        Several positional arguments are one input: `p(1, 2)` calls the first step with both.
        """
        self._last_run = trace = Trace()
        return run(self, args, kwargs, self._kind, trace)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow on the event loop: async steps are awaited, plain ones run in threads."""
        self._last_run = trace = Trace()
        return await arun_alone(self, args, kwargs, self._kind, trace)

    # What `bind` can refer to.

    @property
    def input(self) -> Any:
        """What the flow is called with, for `bind`."""
        return Reference(self._key, f"{self._kind}.input", lambda frame: frame.input)

    @property
    def kwargs(self) -> Any:
        """The keyword arguments that the flow is called with, for `bind`."""
        return Reference(self._key, f"{self._kind}.kwargs", lambda frame: frame.kwargs)

    def _output(self, step: Step, *, unpack: bool = False) -> Reference:
        """Return a reference to what a step returned."""
        text = f"{self._kind}.output({step.label!r})"

        def read(frame: Any) -> Any:
            if step.index in frame.outputs:
                return frame.outputs[step.index]
            raise FlowError(f"{text} is not known yet", hint="Only steps before this one are.")

        return Reference(self._key, text, read, step=step, unpack=unpack)

    # Building.

    def __enter__(self) -> Self:
        self.enter_block(sys._getframe(1))
        return self

    def enter_block(self, builder: FrameType) -> None:
        """Begin to take attributes as steps, for a `with` block in that frame."""
        self._builder = builder
        _building.set((*_building.get(), self))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        outer = _building.get()[:-1]
        _building.set(outer)
        builder, self._builder = self._builder, None
        # `with pipeline() as inner:` in the block of another flow is a step of it.
        if error is None and builder and outer and outer[-1]._builder is builder:
            outer[-1]._adopt(self, builder)

    def _adopt(self, inner: Flow, builder: FrameType) -> None:
        if not self._accepts_steps or any(_unbound(step.item) is inner for step in self._steps):
            return
        name, item = next(
            ((n, v) for n, v in builder.f_locals.items() if _unbound(v) is inner), ("", inner)
        )
        taken = name.startswith("_") or hasattr(type(self), name) or self._find(name) is not None
        self._add("" if taken else name, item)
        self._steps[-1].automatic = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
            return
        if self._builder is None:
            raise FlowError(
                f"{self._kind}.{name}: steps are added inside a `with` block",
                hint=f"with {self._kind}() as p:\n    p.{name} = …",
            )
        self._add(name, value)
        if isinstance(_unbound(value), Flow):
            self._publish(name, self._steps[-1].item)

    def _publish(self, name: str, item: Any) -> None:
        """Let `with pipeline() as p.inner: inner.f = f` work where names are global, as in a cell."""
        names = self._builder.f_globals if self._builder else {}
        if self._builder and self._builder.f_locals is names:
            earlier = _unbound(names.get(name))
            if name not in names or getattr(earlier, "_published", False):
                _unbound(item)._published = True
                names[name] = item

    def __getattr__(self, name: str) -> Any:
        step = None if name.startswith("_") else self._find(name)
        if step is None:
            near = [] if name.startswith("_") else get_close_matches(name, self._names)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise AttributeError(f"{self._kind} has no step {name!r}{hint}")
        # A function is named inside the block only to refer to its output; a module or flow also to set it up.
        if self._builder is not None and isinstance(step.item, _FUNCTIONS):
            return self._output(step)
        return step.item

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._names]

    def _add(self, name: str, item: Any) -> Step:
        if name and (hasattr(type(self), name) or self._find(name) is not None):
            why = "twice" if self._find(name) else "a word that flows use themselves"
            raise FlowError(f"{self._kind}.{name}: the name is {why}", hint="Choose another name.")
        if isinstance(item, Reference) and item._step is not None:
            item = item._step.item  # `p.again = p.first`
        item = item.prepared(_callable, self._refer) if isinstance(item, bind) else _callable(item)
        self._steps = [
            step
            for step in self._steps
            if not (step.automatic and _unbound(step.item) is _unbound(item))
        ]
        self._steps.append(Step(item, name))
        for index, step in enumerate(self._steps):
            step.index = index
        return self._steps[-1]

    def _refer(self, value: Any) -> Any:
        """Turn a step that stands among bound arguments into a reference to its output."""
        if callable(value) and not isinstance(value, _FUNCTIONS):
            for flow in (self, *reversed(_building.get())):
                for step in reversed(flow._steps):
                    if step.item is value:
                        return flow._output(step)
        return value

    def _find(self, name: str) -> Step | None:
        return next((step for step in self._steps if name and step.name == name), None)

    @property
    def _names(self) -> list[str]:
        return [step.name for step in self._steps if step.name]

    # How it looks.

    @property
    def _kind(self) -> str:
        return type(self).__name__.lower()

    @property
    def last_run(self) -> Trace | None:
        """What the last call of this flow did: steps, times, inputs and outputs in short."""
        return self._last_run

    def __repr__(self) -> str:
        return f"{self._kind}({', '.join(map(_text, self._steps))}){self._suffix}"

    @property
    def _suffix(self) -> str:
        """What is written after the closing parenthesis."""
        return ""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from lazynb.flow.picture import mimebundle

        return mimebundle(self)


_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType)


def _text(step: Step) -> str:
    item = _unbound(step.item)
    text = repr(item) if isinstance(item, Flow) else step.label
    return f"{step.name}={text}" if step.name and text != step.name else text


def _unbound(item: Any) -> Any:
    """Return the function of a bind, or the item itself."""
    while isinstance(item, bind) and item.complete:
        item = item._function
    return item


def _callable(item: Any) -> Any:
    """Return a step's item as something to call.

    A class whose objects can be called stands for one of them; any other class is called as it is.
    """
    if isinstance(item, type) and any("__call__" in base.__dict__ for base in item.__mro__):
        return item()
    if not callable(item):
        raise FlowError(f"{item!r} cannot be a step", hint="Steps are functions, modules, flows.")
    return item
