"""Flows: compositions of callables that are called like one.

    with pipeline() as p:
        p.search = search
        p.answer = model | bind(_0, question=p.input)
    p("What is a monad?")

`pipeline`, `loop`: one after the other. `parallel`, `diverter`, `warp`: several at once.
`switch`, `ifs`: one of several. `graph`: named steps and edges. `bind`: which arguments a step
gets.
"""

from lazynb.flow.base import Flow
from lazynb.flow.bound import _0, _1, _2, _3, _4, _5, _6, _7, _8, _9, bind
from lazynb.flow.chain import Chainable
from lazynb.flow.choice import Ifs, Switch
from lazynb.flow.graph import Graph
from lazynb.flow.sequence import Loop, Pipeline
from lazynb.flow.spread import Diverter, Parallel, Warp
from lazynb.flow.values import kwargs, package

pipeline, loop = Pipeline, Loop
parallel, diverter, warp = Parallel, Diverter, Warp
switch, ifs, graph = Switch, Ifs, Graph

__all__ = [
    "Chainable",
    "Flow",
    "_0",
    "_1",
    "_2",
    "_3",
    "_4",
    "_5",
    "_6",
    "_7",
    "_8",
    "_9",
    "bind",
    "diverter",
    "graph",
    "ifs",
    "kwargs",
    "loop",
    "package",
    "parallel",
    "pipeline",
    "switch",
    "warp",
]
