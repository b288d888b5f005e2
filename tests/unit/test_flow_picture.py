"""What a flow looks like: as text, and as a picture of its last run."""

import time
from xml.etree import ElementTree as ET

import pytest
from IPython.core.formatters import DisplayFormatter

from lazynb.flow import bind, graph, ifs, loop, package, parallel, pipeline, switch, warp
from lazynb.flow.outline import duration
from lazynb.flow.trace import summary

SVG = "{http://www.w3.org/2000/svg}"


def shown(flow):
    """Return what a front end gets for a flow at the end of a cell."""
    return DisplayFormatter().format(flow)[0]


def add_one(x):
    return x + 1


def texts(flow):
    root = ET.fromstring(shown(flow)["image/svg+xml"])
    return [node.text for node in root.iter(f"{SVG}text")]


def test_a_repr_is_one_line():
    flow = pipeline(add_one, inner=parallel(a=add_one, b=str).sum) | bind(y=1)
    assert repr(flow) == "pipeline(add_one, inner=parallel(a, b).sum) | bind(y=1)"


def test_the_text_tells_what_ran_how_long_and_what_went_in_and_out():
    def slow(x):
        time.sleep(0.02)
        return x * 2

    flow = pipeline(slow=slow, both=parallel(a=add_one, b=str))
    flow(4)
    lines = shown(flow)["text/plain"].splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["pipeline", lines[0].split()[1]],
        ["├─", "slow"],
        ["└─", "both"],
        ["├─", "a"],
        ["└─", "b"],
    ]
    assert lines[0].endswith("4 → (9, '8')")
    assert lines[1].endswith("4 → 8")
    assert "ms" in lines[1]
    assert 15 <= float(lines[1].split()[2]) <= 200


def test_a_flow_that_did_not_run_shows_its_steps_only():
    assert shown(pipeline(a=add_one, b=str))["text/plain"] == "pipeline\n├─ a\n└─ b"


def test_a_failed_run_shows_where_and_why():
    flow = pipeline(a=add_one, bad=lambda x: 1 / 0, never=add_one)
    with pytest.raises(ZeroDivisionError):
        flow(1)
    lines = shown(flow)["text/plain"].splitlines()
    assert lines[2].endswith("2 → ZeroDivisionError: division by zero")
    assert lines[3] == "└─ never"
    svg = ET.fromstring(shown(flow)["image/svg+xml"])
    red = [node.text for node in svg.iter(f"{SVG}text") if "bad" in node.get("class").split()]
    assert "ZeroDivisionError: division by ze…" in red


def test_only_the_branch_that_was_taken_has_a_time():
    flow = switch({"a": add_one, "default": str})
    flow(3)
    first, second = shown(flow)["text/plain"].splitlines()[1:]
    assert first == "├─ 'a': add_one"
    assert second.startswith("└─ 'default': str")
    assert second.endswith("3 → '3'")
    assert "if add_one" in texts(ifs(add_one, str, str))


def test_steps_that_run_more_than_once_are_counted():
    flow = pipeline(turn=loop(add_one, count=5), each=lambda x: [x] * 3, w=warp(add_one, str))
    flow(0)
    text = shown(flow)["text/plain"]
    assert text.count("×5") == 1
    assert text.count("×3") == 2
    assert flow.last_run.steps[0].inside.steps[0].runs == 5


def test_each_call_makes_a_new_trace():
    flow = pipeline(add_one)
    flow(1)
    flow(10)
    assert flow.last_run.steps[0].runs == 1
    assert flow.last_run.whole.output == "11"


def test_the_picture_is_well_formed_and_holds_nothing_live():
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">\x00\x1b\ud800'

    class Evil:
        def __repr__(self):
            return evil

    flow = pipeline(**{evil: lambda x: Evil()})
    flow(evil)
    bundle = shown(flow)
    ET.fromstring(bundle["image/svg+xml"])
    assert "<script" not in bundle["text/html"]
    assert "<img" not in bundle["text/html"]
    assert 'onerror="' not in bundle["text/html"]
    bundle["text/html"].encode()


def test_a_graph_is_layered_by_what_waits_for_what():
    g = graph(a=add_one, b=add_one, c=lambda x, y: x + y)
    g.add_edge(g.start_node_name, ["a", "b"])
    g.add_edge(["a", "b"], "c")
    g.add_edge("c", g.end_node_name)
    assert g.ranks() == [["a", "b"], ["c"]]
    assert {"input", "a", "b", "c", "output"} <= set(texts(g))
    svg = shown(g)["image/svg+xml"]
    assert svg.count("C") >= 5, "one curve for each edge"


def test_without_style_sheets_and_svg_the_page_still_reads_as_a_tree():
    flow = pipeline(first=add_one, both=parallel(a=add_one, b=str))
    flow(1)
    page = ET.fromstring(f"<page>{shown(flow)['text/html']}</page>")
    lines = "".join(page.find("div/pre").itertext()).strip().splitlines()
    assert [line.split()[0] for line in lines] == ["pipeline", "first", "both", "a", "b"]
    assert lines[1].startswith("    first ")
    assert lines[1].endswith(" 1 → 2")
    assert lines[3].startswith("        a ")


def test_what_went_in_and_out_belong_to_the_same_run():
    flow = warp(lambda x: x * 10)
    flow(range(50))
    step = flow.last_run.steps[0].inside.steps[0]
    assert int(step.output) == int(step.input) * 10


def test_an_input_is_shown_as_it_was_before_the_step_changed_it():
    flow = pipeline(lambda x: x.append(1) or x)
    flow([])
    assert flow.last_run.steps[0].input == "[]"


def test_wide_flows_stay_small():
    flow = warp(parallel(*[add_one] * 50))
    flow(range(20))
    assert "and 42 more" in texts(flow)
    assert len(shown(flow)["image/svg+xml"]) < 20_000


def test_values_are_shortened_and_a_broken_repr_breaks_nothing():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    class Array:
        shape = (3, 4)

    assert len(summary("x" * 10**6)) < 300
    assert len(summary([["x" * 1000] * 1000] * 1000)) < 300
    assert "Broken" in summary(Broken())
    assert summary(Array()) == "Array 3 × 4"
    flow = pipeline(lambda x: Broken())
    flow(package(1))
    assert "Broken" in shown(flow)["text/plain"]


def test_the_trace_keeps_no_value_alive():
    import weakref

    class Big:
        pass

    kept = []

    def make(x):
        big = Big()
        kept.append(weakref.ref(big))
        return big

    flow = pipeline(make, lambda big: 1)
    flow(1)
    assert kept[0]() is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00003, "30 µs"), (0.012, "12 ms"), (1.26, "1.3 s"), (125, "2 min 5 s")],
)
def test_durations_are_written_for_people(seconds, text):
    assert duration(seconds) == text
