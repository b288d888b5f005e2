"""Any nesting of flows computes what the same plain Python does, in threads and on an event loop."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from lazynb.flow import (
    _0,
    bind,
    diverter,
    graph,
    ifs,
    loop,
    parallel,
    pipeline,
    switch,
    warp,
)

# A case is a flow from int to int, and the plain function that it must equal.
INTS = st.integers(-9, 9)


@st.composite
def leaves(draw):
    a, b = draw(INTS), draw(INTS)

    def f(x):
        return a * x + b

    async def g(x):
        return a * x + b

    return (f, g), f


def both(flow):
    """Build a flow twice: of plain functions, and with async ones in it."""
    return flow(0), flow(1)


def in_sequence(cases):
    def plain(x):
        for _, f in cases:
            x = f(x)
        return x

    return both(lambda i: pipeline(*(flows[i] for flows, _ in cases))), plain


def at_once(cases):
    return both(lambda i: parallel(*(flows[i] for flows, _ in cases)).sum), lambda x: sum(
        f(x) for _, f in cases
    )


def diverted(cases):
    return (
        both(
            lambda i: pipeline(
                lambda x: [x + n for n in range(len(cases))],
                diverter(*(flows[i] for flows, _ in cases)).aslist,
                sum,
            )
        ),
        lambda x: sum(f(x + n) for n, (_, f) in enumerate(cases)),
    )


def warped(cases):
    flows, f = cases[0]
    return (
        both(lambda i: pipeline(lambda x: range(x, x + 3), warp(flows[i], lambda x: x + 1).sum)),
        lambda x: sum(f(n) + 1 for n in range(x, x + 3)),
    )


def chosen(cases):
    (first, f), (second, g) = cases[0], cases[-1]
    return (
        both(
            lambda i: switch(
                lambda x: x % 3 == 0,
                ifs(lambda x: x > 0, first[i], second[i]),
                "default",
                second[i],
            )
        ),
        lambda x: f(x) if x % 3 == 0 and x > 0 else g(x),
    )


def repeated(cases):
    flows, f = cases[0]
    return both(
        lambda i: loop(flows[i], lambda x: x % 101, count=3)
    ), lambda x: f(f(f(x) % 101) % 101) % 101


def bound(cases):
    (first, f), (second, g) = cases[0], cases[-1]

    def flow(i):
        with pipeline() as p:
            p.first = pipeline(first[i])
            with parallel().sum as p.inner:
                p.inner.a = second[i]
                p.inner.b = (lambda x, y, z: x - y + 2 * z) | bind(_0, p.input, z=p.output("first"))
        return p

    return both(flow), lambda x: g(f(x)) + f(x) - x + 2 * f(x)


def connected(cases):
    (first, f), (second, g) = cases[0], cases[-1]

    def flow(i):
        net = graph(a=first[i], b=second[i], c=second[i], d=lambda x, y, z: x - 2 * y + 3 * z)
        net.add_edge(net.start_node_name, ["a", "b"])
        net.add_edge("a", "c")
        net.add_edge(["a", "b", "c"], "d")
        net.add_edge("d", net.end_node_name)
        return net

    return both(flow), lambda x: f(x) - 2 * g(x) + 3 * g(f(x))


SHAPES = [in_sequence, at_once, diverted, warped, chosen, repeated, bound, connected]
CASES = st.recursive(
    leaves(),
    lambda inner: st.builds(
        lambda shape, cases: shape(cases),
        st.sampled_from(SHAPES),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(CASES, INTS)
def test_nested_flows_equal_their_plain_evaluation(case, x):
    (flow, mixed), plain = case
    assert pipeline(flow)(x) == plain(x)
    assert asyncio.run(pipeline(mixed).acall(x)) == plain(x)
