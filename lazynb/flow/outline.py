"""A flow and its last run as a tree of plain nodes: what the text and the picture are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lazynb.flow.base import Flow, _unbound
from lazynb.flow.choice import Ifs, Switch
from lazynb.flow.frame import Step, label
from lazynb.flow.graph import END, START, Graph
from lazynb.flow.sequence import Pipeline
from lazynb.flow.spread import Warp
from lazynb.flow.trace import StepTrace, Trace

State = Literal["", "running", "failed", "done"]
Shape = Literal["leaf", "column", "row", "graph"]


@dataclass
class Node:
    """One step, or one flow with its steps.

    Attributes
    ----------
    name : str
        Its name, or that of its function.
    kind : str
        'pipeline', 'parallel.sum', …; '' for a step that is no flow.
    caption : str
        When it is taken: the case of a switch.
    trace : StepTrace
        What it did in the last run.
    shape : 'leaf', 'column', 'row' or 'graph'
        How its children stand.
    edges : list of tuple of str
        Those of a graph, by the names of its steps; '__start__' and '__end__' are its ends.
    ranks : list of list of str
        The names of a graph's steps, by how far from the start they are.
    """

    name: str
    kind: str = ""
    caption: str = ""
    trace: StepTrace = field(default_factory=StepTrace)
    shape: Shape = "leaf"
    children: list[Node] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)
    ranks: list[list[str]] = field(default_factory=list)

    @property
    def state(self) -> State:
        """How the last run left it; '' when it did not run."""
        if self.trace.error:
            return "failed"
        if self.trace.running:
            return "running"
        return "done" if self.trace.runs else ""

    @property
    def time(self) -> str:
        """How often and how long it ran: '×3 12 ms'."""
        runs = f"×{self.trace.runs} " if self.trace.runs > 1 else ""
        return runs + duration(self.trace.seconds) if self.trace.runs else self.state

    @property
    def values(self) -> str:
        """What went in and out, or the error."""
        if self.state in ("", "running"):
            return self.trace.input
        return f"{self.trace.input} → {self.trace.error or self.trace.output}"


def outline(flow: Flow) -> Node:
    """Return the tree of a flow and its last run."""
    run = flow.last_run or Trace()
    return _flow(flow, flow._kind, run.whole, run)


def _flow(flow: Flow, name: str, whole: StepTrace, run: Trace) -> Node:
    node = Node(name, flow._kind + flow._suffix, trace=whole, shape=_shape(flow))
    if isinstance(flow, Warp):  # its steps are those of a pipeline that ran for each input
        run = run.step(0).inside or Trace()
    node.children = [_step(step, run) for step in flow._steps]
    if isinstance(flow, (Switch, Ifs)):
        for child, caption in zip(node.children, _captions(flow), strict=True):
            child.caption = caption
    if isinstance(flow, Graph):
        node.edges = [
            (e.source, to) for to, edges in flow._edges.items() for e in edges if e.source
        ]
        node.ranks = flow.ranks()
        node.edges = [edge for edge in node.edges if edge != (START, END)]
    return node


def _step(step: Step, run: Trace) -> Node:
    trace = run.steps.get(step.index) or StepTrace()
    item = _unbound(step.item)
    if isinstance(item, Flow):
        return _flow(item, step.label if step.name else item._kind, trace, trace.inside or Trace())
    return Node(step.name or label(item), trace=trace)


def _shape(flow: Flow) -> Shape:
    if isinstance(flow, Graph):
        return "graph"
    return "column" if isinstance(flow, (Pipeline, Warp)) else "row"


def _captions(flow: Switch | Ifs) -> list[str]:
    if isinstance(flow, Ifs):
        condition = flow._condition.item
        return [f"if {label(condition) if callable(condition) else condition}", "else"]
    return [label(case) if callable(case) else repr(case)[:40] for case in flow._cases]


def duration(seconds: float) -> str:
    """Return a time for people: '30 µs', '12 ms', '1.3 s', '2 min 5 s'."""
    if seconds < 0.001:  # noqa: PLR2004
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def text(node: Node) -> str:
    """Return the tree as lines of text, its columns aligned."""
    rows: list[tuple[str, str, str]] = []
    _rows(node, "", "", rows)
    width = max(len(title) for title, _, _ in rows)
    times = max(len(time) for _, time, _ in rows)
    return "\n".join(
        f"{title:<{width}}  {time:>{times}}  {values}".rstrip() for title, time, values in rows
    )


def _rows(node: Node, prefix: str, indent: str, rows: list[tuple[str, str, str]]) -> None:
    kind = f" ({node.kind})" if node.kind and node.kind != node.name else ""
    caption = f"{node.caption}: " if node.caption else ""
    values = node.values if len(node.values) <= 100 else node.values[:99] + "…"  # noqa: PLR2004
    rows.append((f"{prefix}{caption}{node.name}{kind}", node.time, values))
    for place, child in enumerate(node.children, 1):
        last = place == len(node.children)
        _rows(child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "), rows)
