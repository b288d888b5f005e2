"""`graph`: named steps and the edges between them, run as soon as what they need is there."""

from __future__ import annotations

import threading
from collections.abc import Callable  # noqa: TC003 - the dataclass reads its annotations
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from lazynb.errors import FlowError
from lazynb.flow.base import Flow
from lazynb.flow.frame import Call, Fork, Frame
from lazynb.flow.threads import MAX_THREADS
from lazynb.flow.values import gather, kwargs, spread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynb.flow.frame import Plan
    from lazynb.flow.values import Arguments

START, END = "__start__", "__end__"


class Graph(Flow):
    """Steps that are connected by edges; those that do not wait for each other run at the same time.

    A step with several edges gets one argument for each, in the order in which the edges were added.

    Examples
    --------
    >>> g = Graph(a=str.upper, b=str.lower, both=lambda x, y: x + y)
    >>> g.add_edge(g.start_node_name, ['a', 'b'])
    >>> g.add_edge(['a', 'b'], 'both')
    >>> g.add_edge('both', g.end_node_name)
    >>> g('Text')
    'TEXTtext'
    """

    start_node_name = start_node = START
    end_node_name = end_node = END

    def __init__(self, **named: Any) -> None:
        self._edges: dict[str, list[_Edge]] = {}  # by the node that they lead to
        self._argument_names: dict[str, list[str]] = {}
        super().__init__(**named)

    def add_edge(
        self, from_node: Any, to_node: Any, formatter: Callable[[Any], Any] | None = None
    ) -> None:
        """Let what one step returns go to another one.

        Parameters
        ----------
        from_node, to_node : str or list of str
            Names of steps; `start_node_name` is the input of the graph, `end_node_name` its output. An edge from
            or to each of a list.
        formatter : callable, optional
            What is done with the value on its way.

        Raises
        ------
        FlowError
            There is no such step, the edge is there already, or it would close a cycle.
        """
        for source in _each(from_node):
            for target in _each(to_node):
                self._connect(source, target, formatter)

    def add_const_edge(self, constant: Any, to_node: Any) -> None:
        """Let a constant be an argument of a step."""
        for target in _each(to_node):
            self._check(target, START)
            self._edges.setdefault(target, []).append(_Edge(None, None, constant))

    def set_node_arg_name(self, arg_names: Iterable[list[str] | None]) -> None:
        """Pass the values of a step's edges as keyword arguments: the names for each step, in their order."""
        for step, names in zip(self._steps, arg_names, strict=False):
            if names:
                self._argument_names[step.name] = list(names)

    def _connect(self, source: str, target: str, formatter: Callable[[Any], Any] | None) -> None:
        self._check(source, END)
        self._check(target, START)
        edges = self._edges.setdefault(target, [])
        if any(edge.source == source for edge in edges):
            raise FlowError(f"graph: there is an edge {source} → {target} already")
        edges.append(_Edge(source, formatter, None))
        try:
            self._sorter().prepare()
        except CycleError as error:
            edges.pop()
            cycle = " → ".join(error.args[1])
            raise FlowError(
                f"graph: the edge {source} → {target} closes a cycle: {cycle}",
                hint="Use `loop` for what is done more than once.",
            ) from None

    def _check(self, name: Any, forbidden: str) -> None:
        names = {*self._names, START, END} - {forbidden}
        if name not in names:
            near = get_close_matches(str(name), names) or sorted(names)
            raise FlowError(f"graph: no edge can be at {name!r}", hint=f"Steps: {', '.join(near)}.")

    def _sorter(self) -> TopologicalSorter[str]:
        return TopologicalSorter(
            {
                target: [edge.source for edge in edges if edge.source]
                for target, edges in self._edges.items()
            }
        )

    def ranks(self) -> list[list[str]]:
        """Return the names of the connected steps by how far from the input they are."""
        sorter = self._sorter()
        sorter.prepare()
        ranks = []
        while sorter.is_active():
            rank = sorter.get_ready()
            sorter.done(*rank)
            ranks.append([step.name for step in self._steps if step.name in rank])
        return [rank for rank in ranks if rank]

    # The run.

    def _plan(self, frame: Frame) -> Plan:
        if END not in self._edges:
            raise FlowError(
                "graph: no edge leads to the end",
                hint="g.add_edge('name of the last step', g.end_node_name)",
            )
        run = _Run(self, frame)
        yield run
        return _one(run.arguments(END))


@dataclass(frozen=True, slots=True)
class _Edge:
    """Where an argument of a step comes from: another step, or a constant."""

    source: str | None
    formatter: Callable[[Any], Any] | None
    constant: Any


class _Run(Fork):
    """A run of a graph: what is done, and what can begin."""

    def __init__(self, graph: Graph, frame: Frame) -> None:
        super().__init__((), MAX_THREADS)
        self._graph = graph
        self._steps = {step.name: step for step in graph._steps}
        self._values: dict[str, Arguments] = {START: (frame.args, frame.kwargs)}
        self._lock = threading.Lock()
        self._sorter = graph._sorter()
        self._sorter.prepare()
        self.calls = self._ready()

    def done(self, call: Call, value: Any) -> Iterable[Call]:
        with self._lock:
            self._values[call.step.name] = spread(value)
            self._sorter.done(call.step.name)
            return self._ready()

    def arguments(self, name: str) -> Arguments:
        """Return what a step is called with: the values of its edges, in their order."""
        args: tuple[Any, ...] = ()
        named: dict[str, Any] = {}
        for edge in self._graph._edges.get(name, ()):
            more, more_named = self._value(edge)
            if twice := named.keys() & more_named.keys():
                raise FlowError(f"graph: two edges to {name} bring {', '.join(sorted(twice))}")
            args += more
            named.update(more_named)
        names = self._graph._argument_names.get(name, [])
        named.update(zip(names, args, strict=False))
        return args[len(names) :], named

    def _value(self, edge: _Edge) -> Arguments:
        if edge.source is None:
            return (edge.constant,), {}
        value = self._values[edge.source]
        return spread(edge.formatter(_one(value))) if edge.formatter else value

    def _ready(self) -> list[Call]:
        calls: list[Call] = []
        while names := self._sorter.get_ready():
            for name in names:
                if name in (START, END):
                    self._sorter.done(name)
                else:
                    prepare = partial(self.arguments, name)
                    calls.append(Call(self._steps[name], prepare=prepare))
        return calls


def _one(value: Arguments) -> Any:
    """Return the one value that arguments are."""
    args, named = value
    return kwargs(named) if named and not args else gather(args)


def _each(node: Any) -> list[Any]:
    return list(node) if isinstance(node, (list, tuple)) else [node]
