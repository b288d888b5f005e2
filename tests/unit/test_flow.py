"""What each flow does, and how one is written."""

import copy

import pytest

from lazynb.errors import FlowError
from lazynb.flow import (
    Chainable,
    _0,
    _1,
    bind,
    diverter,
    graph,
    ifs,
    kwargs,
    loop,
    package,
    parallel,
    pipeline,
    switch,
    warp,
)


def add_one(x):
    return x + 1


def double(x):
    return x * 2


def xy2z(x, y, z=0):
    return x + y + 2 * z


class Square:
    def __call__(self, x):
        return x * x


class Model(Chainable):
    """Stands for a module: an object that is called and can be chained."""

    def __init__(self, word):
        self.word = word

    def __call__(self, text):
        return f"{text} {self.word}"


# Pipelines, and what a step is.


def test_a_pipeline_passes_the_output_of_a_step_to_the_next():
    assert pipeline(add_one, double, Square())(1) == 16


def test_steps_can_be_named_listed_or_added_in_a_block():
    with pipeline() as p:
        p.first = add_one
        p.second = double
    assert p(1) == pipeline([add_one, double])(1) == pipeline(a=add_one, b=double)(1) == 4
    assert p.first is add_one


def test_a_class_of_callables_stands_for_one_of_them_and_any_other_is_called():
    assert pipeline(Square, str)(3) == "9"


def test_an_empty_pipeline_returns_its_input():
    assert pipeline()(1) == 1
    assert pipeline()(1, 2) == (1, 2)


def test_keyword_arguments_of_the_call_go_to_the_first_step():
    assert pipeline(xy2z, add_one)(1, y=2, z=3) == 10


def test_packages_spread_and_tuples_do_not():
    assert pipeline(lambda x: package(x, x), lambda a, b: a + b)(2) == 4
    assert pipeline(lambda x: (x, x), len)(2) == 2
    assert pipeline(lambda x: kwargs(x=x, y=1), xy2z)(2) == 3


def test_flows_nest_by_block_and_by_assignment():
    with pipeline() as p:
        with pipeline() as inner:  # in the block of another flow: a step of it
            inner.a = lambda x: x + "1"
            with pipeline() as innermost:
                innermost.a = lambda x: x + "2"
        with pipeline() as p.named:
            p.named.a = lambda x: x + "3"
        p.last = pipeline(lambda x: x + "4")
    assert p("0") == "01234"
    assert p.inner is inner
    assert p.inner.innermost is innermost


def test_a_flow_made_in_a_block_and_assigned_after_it_is_one_step():
    with pipeline() as p:
        with pipeline() as inner:
            inner.a = add_one
        p.better_name = inner | bind(_0)
    assert p(1) == 2


def test_a_flow_that_a_function_builds_does_not_slip_into_the_block_that_calls_it():
    def build():
        with pipeline() as made:
            made.a = add_one
        return made

    with pipeline() as p:
        number = build()(0)
        p.x = build()
    assert p(number) == 2


def test_at_the_top_of_a_cell_a_nested_flow_has_its_bare_name_also_when_run_again():
    cell = compile(
        "with pipeline() as p:\n"
        "    p.f = add_one\n"
        "    with pipeline() as p.inner:\n"
        "        inner.g = double\n"
        "    with pipeline().bind(extra=p.input) as p.bound:\n"
        "        bound.h = lambda x, extra: x * extra\n",
        "cell",
        "exec",
    )
    names = {"pipeline": pipeline, "add_one": add_one, "double": double}
    for _ in range(2):
        exec(cell, names)
        assert names["p"](2) == 12


def test_a_bare_name_never_replaces_a_variable_of_the_user():
    names = {"pipeline": pipeline, "inner": "mine", "f": add_one}
    exec("with pipeline() as p:\n    with pipeline() as p.inner:\n        p.inner.f = f", names)
    assert names["inner"] == "mine"


# bind


def test_bind_takes_the_input_earlier_outputs_and_placeholders():
    def show(a, b, c):
        return f"{a} {b} {c}"

    with pipeline() as p:
        p.f1 = add_one
        p.f2 = double
        p.f3 = show | bind(p.input, _0, p.f1)
    assert p(1) == "1 4 2"
    with pipeline() as p:
        p.f1 = add_one
        p.f2 = double
        p.f3 = bind(show, p.output("f1"), p.output(p.f2), c=_0)
    assert p(1) == "2 4 4"


def test_bind_alone_is_a_partial_function_with_reordered_arguments():
    assert bind(pow, _1, _0)(2, 3) == 9
    assert (pow | bind(_0, 2))(5) == 25
    assert (xy2z | bind(y=1))(1, z=2) == 6
    assert Model("b").bind("a")("ignored") == "a b"


def test_references_take_items_and_attributes():
    with pipeline() as p:
        p.f = lambda x: x["n"]
        p.g = xy2z | bind(y=p.input["list"][1], z=p.input["c"].real)
    assert p({"n": 1, "list": [0, 10], "c": 100 + 1j}) == 211


def test_a_flow_inside_can_refer_to_the_one_around_it_even_in_threads():
    with pipeline() as p:
        p.f1 = add_one
        with parallel().sum as p.sub:
            p.sub.a = xy2z | bind(y=p.input, z=p.output("f1"))
            with pipeline() as p.sub.deep:
                p.sub.deep.b = xy2z | bind(y=p.input, z=p.f1)
        p.last = pipeline(xy2z) | bind(y=p.input)
    assert p(3) == 2 * (4 + 3 + 8) + 3


def test_a_step_among_bound_arguments_means_its_output():
    model = Model("a")
    with pipeline() as p:
        p.model = model
        p.again = lambda text: text + "!"
        p.both = (lambda x, y: [x, y]) | bind(_0, p.model)
    assert p("x") == ["x a!", "x a"]


def test_the_same_function_twice_has_two_outputs():
    with pipeline() as p:
        p.a = add_one
        p.b = add_one
        p.c = (lambda *x: x) | bind(p.a, p.b)
    assert p(0) == (1, 2)


def test_keyword_arguments_and_packages_can_be_referred_to():
    with pipeline() as p:
        p.f = lambda x, k: package(x, k, x + k)
        p.g = lambda *x: 0
        p.h = (lambda *x, k: (x, k)) | bind(p.output("f", unpack=True)[1:], k=p.kwargs["k"])
    assert p(1, k=2) == ((2, 3), 2)


def test_a_reference_outside_of_its_flow_says_so():
    with pipeline() as p:
        p.f = add_one
    with pytest.raises(FlowError, match=r"pipeline\.input is only known while that flow runs"):
        bind(add_one, p.input)()
    with pytest.raises(FlowError, match=r"There is no _1: .* 1 positional"):
        pipeline(add_one | bind(_1))(1)
    with pytest.raises(FlowError, match="y is bound already"):
        (xy2z | bind(y=1))(1, y=2)


# Several at once


def test_parallel_gives_all_the_same_input_and_keeps_their_order():
    p = parallel(a=add_one, b=double)
    assert p(3) == (4, 6)
    assert pipeline(p, xy2z)(3) == 10
    assert p.sum(3) == 10
    assert p.aslist(3) == [4, 6]
    assert p.asdict(3) == {"a": 4, "b": 6}
    assert p.join("-")(3) == "4-6"
    assert pipeline(p.astuple, len)(3) == 2
    assert p(3) == (4, 6), "looking at p.sum must not change p"
    assert parallel.sequential(add_one, double).sum(1) == 4


def test_the_sum_takes_texts_and_lists():
    assert parallel(str, str).sum(1) == "11"
    assert parallel(lambda x: [x], lambda x: [x]).sum(1) == [1, 1]
    assert warp(add_one).sum([]) == 0


def test_parallel_in_a_block():
    with parallel().asdict as p:
        p.a = add_one
        p.b = double
    assert p(1) == {"a": 2, "b": 2}


def test_diverter_gives_each_step_its_own_input():
    d = diverter(a=add_one, b=double)
    assert d(1, 2) == d([1, 2]) == d({"b": 2, "a": 1}) == (2, 4)
    assert pipeline(parallel(add_one, double), d)(1) == (3, 4)
    with pytest.raises(FlowError, match="3 inputs for 2 steps"):
        d(1, 2, 3)
    with pytest.raises(FlowError, match="differ in c"):
        d({"a": 1, "b": 2, "c": 3})


def test_warp_does_the_same_to_every_input():
    assert warp(add_one)(1, 2, 3) == warp(add_one)([1, 2, 3]) == (2, 3, 4)
    assert warp(add_one, double).aslist(range(3)) == [2, 4, 6]
    assert warp(add_one)() == ()
    with warp() as w:
        w.a = add_one
        w.b = xy2z | bind(y=w.input)
    assert w([1, 2]) == (3, 5)
    with pytest.raises(FlowError, match="a str cannot be split"):
        warp(add_one)("text")


# One of several


def test_switch_takes_values_predicates_and_a_default():
    s = switch({"a": add_one, "default": double}, conversion=lambda x: "a" if x > 10 else x)
    assert s(11) == 12
    assert s(1) == 2
    assert switch("default", double, lambda x: x == 5, add_one)(5) == 6
    assert switch({1: add_one})(2) is None


def test_switch_in_a_block():
    with switch(judge_on_full_input=False) as s:
        s.case[0:add_one]
        s.case[1::double]
        s.case["two", xy2z]
        s.case(lambda case: case == "three", Square())
        with pipeline() as s.case["four"]:
            pass
    assert s(0, 1) == 2
    assert s(1, 5) == 10
    assert s("two", 1, 2) == 3
    assert s("three", 3) == 9
    assert s("four", 3) == 3


def test_ifs_takes_a_condition_with_and_without_arguments_and_a_bool():
    f = ifs(lambda x: x > 0, add_one, double)
    assert f(1) == 2
    assert f(-1) == -2
    assert ifs(lambda: False, add_one, double)(3) == 6
    assert ifs(True, add_one, double)(3) == 4
    assert pipeline(parallel(add_one, double), ifs(lambda x, y: x < y, max, min))(5) == 10


def test_loop_ends_by_condition_and_by_count():
    assert loop(double, stop_condition=lambda x: x > 10)(1) == 16
    assert loop(add_one, add_one, count=2)(1) == 5
    with loop(stop_condition=lambda x: x > 10, count=3) as turn:
        turn.a = double
    assert turn(1) == 8
    countdown = loop(
        lambda n: (n == 1, n - 1), stop_condition=lambda x: x, judge_on_full_input=False
    )
    assert countdown(5) == 0
    with pytest.raises(FlowError, match="never ends"):
        loop(add_one)


# graph


def diamond():
    with graph() as g:
        g.left = lambda x: x + "l"
        g.right = lambda x: x + "r"
        g.join = lambda a, b, c="": a + b + c
    g.add_edge(g.start_node_name, ["left", "right"])
    g.add_edge(["left", "right"], "join")
    g.add_edge("join", g.end_node_name)
    return g


def test_a_graph_passes_values_along_its_edges_in_their_order():
    assert diamond()("x") == "xlxr"


def test_edges_can_format_be_constant_and_be_named():
    g = graph(a=add_one, b=xy2z)
    g.add_edge(g.start_node, "a")
    g.add_edge("a", "b", formatter=lambda x: x * 10)
    g.add_const_edge(5, "b")
    g.add_edge("b", g.end_node)
    assert g(1) == 25
    g.set_node_arg_name([None, ["y", "x"]])
    assert g(1) == 25
    assert diamond()("") == "lr"


def test_several_edges_to_the_end_are_several_values():
    g = graph(a=add_one, b=double)
    g.add_edge(g.start_node_name, ["a", "b"])
    g.add_edge(["a", "b"], g.end_node_name)
    assert pipeline(g, xy2z)(3) == 10


def test_a_cycle_is_refused_by_name_and_leaves_the_graph_as_it_was():
    g = diamond()
    with pytest.raises(FlowError, match=r"join → left closes a cycle: .*left → join"):
        g.add_edge("join", "left")
    assert g("x") == "xlxr"


def test_wrong_edges_say_what_is_wrong():
    g = diamond()
    with pytest.raises(FlowError, match=r"'lef'(.|\n)*left"):
        g.add_edge("lef", "join")
    with pytest.raises(FlowError, match="already"):
        g.add_edge("left", "join")
    with pytest.raises(FlowError, match="no edge leads to the end"):
        graph(a=add_one)(1)


# | and mistakes


def test_modules_and_functions_chain():
    chained = Model("a") | Model("b") | str.upper
    assert chained("x") == "X A B"
    assert repr(chained) == "pipeline(Model, Model, upper)"
    assert (str.upper | Model("a"))("x") == "X a"
    assert ((xy2z | bind(y=1)) | add_one)(1) == 3
    with pytest.raises(TypeError):
        Model("a") | 3


def test_steps_are_only_added_in_a_block():
    p = pipeline(add_one)
    with pytest.raises(FlowError, match="inside a `with` block"):
        p.more = add_one


@pytest.mark.parametrize("name", ["input", "output", "bind", "last_run"])
def test_a_name_that_flows_use_is_refused(name):
    with pipeline() as p, pytest.raises(FlowError, match="flows use themselves"):
        setattr(p, name, add_one)


def test_mistakes_have_a_message():
    with pipeline() as p:
        p.first = add_one
        with pytest.raises(FlowError, match="twice"):
            p.first = double
        with pytest.raises(FlowError, match="3 cannot be a step"):
            p.three = 3
    with pytest.raises(AttributeError, match="did you mean first"):
        _ = p.frist
    s = switch()
    with s, pytest.raises(FlowError, match="are cases"):
        s.a = add_one
    with pytest.raises(FlowError, match="has no function"):
        pipeline(bind(1))


def test_a_failed_block_leaves_nothing_open():
    with pytest.raises(ZeroDivisionError), pipeline() as p:  # noqa: PT012
        p.a = add_one
        _ = 1 / 0
    with pipeline() as q:
        q.a = double
    assert q(2) == 4
    assert p(2) == 3


def test_flows_can_be_copied():
    with pipeline() as p:
        p.a = add_one
        p.b = xy2z | bind(y=p.input, z=p.a)
    assert copy.copy(p)(1) == copy.deepcopy(p)(1) == p(1) == 7
