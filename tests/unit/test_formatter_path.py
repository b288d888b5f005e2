"""Paths into a value: what they mean in plain Python."""

import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lazynb import formatter
from lazynb.errors import LazynbError, OptionError
from lazynb.formatter import JsonFormatter

people = [{"name": "Ada", "born": 1815, "a, b": [1, 2]}, {"name": "Alan", "born": 1912, "a, b": []}]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", people),
        ("[0]", people[0]),
        ("[-1][name]", "Alan"),
        ("[:]", people),
        ("[:][name]", ["Ada", "Alan"]),
        ("[ : ] [ name ]", ["Ada", "Alan"]),
        ("[1:][born]", [1912]),
        ("[::-1][name]", ["Alan", "Ada"]),
        ("[:][name, born]", [["Ada", 1815], ["Alan", 1912]]),
        ("[:][name,]", [["Ada"], ["Alan"]]),
        ("[0, 1][name]", ["Ada", "Alan"]),
        ("[:]{born}", [{"born": 1815}, {"born": 1912}]),
        ("[0]{born, name}", {"born": 1815, "name": "Ada"}),
        ("[0]{:}", people[0]),
        ("[1][:]", ["Alan", 1912, []]),
        ("[:]['a, b']", [[1, 2], []]),
        ('[0]["a, b"][1]', 2),
        ("[:]{'a, b'}[:1]", [{"a, b": [1]}, {"a, b": []}]),
    ],
)
def test_a_path_says_what_is_wanted(path, value):
    assert JsonFormatter(path)(people) == value


def test_a_number_is_a_key_in_a_dict():
    assert JsonFormatter("[1]")({"1": "a"}) == "a"
    assert JsonFormatter("[1]")({1: "a"}) == "a"
    assert JsonFormatter("{1}")({1: "a"}) == {1: "a"}


def test_a_tuple_stays_a_tuple():
    assert JsonFormatter("[:][0]")(([1], [2])) == (1, 2)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("[0][nme]", ["[nme]", "'nme'", "Ada"]),
        ("[:][7]", ["[7]", "'7'"]),
        ("[7]", ["[7]", "length 2"]),
        ("[name]", ["[name]", "no index"]),
        ("{name}", ["{name}", "a dict"]),
        ("[0]{nme}", ["{nme}", "'nme'"]),
        ("[0][0:1]", ["[0:1]", "a list"]),
        ("[0][name][0]", ["[0]", "'Ada'"]),
        ("[0][name][:]", ["[:]", "'Ada'"]),
    ],
)
def test_a_step_that_does_not_fit_is_named(path, named):
    with pytest.raises(LazynbError) as caught:
        JsonFormatter(path)(people)
    for part in named:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["a", "[0", "0]", "[]", "{}", "[a:b]", "[::0]", "{1:2}", "[a}", "[a,,b]", "*[0]", "['a]"],
)
def test_a_path_that_cannot_be_read_is_an_error_at_once(path):
    with pytest.raises(OptionError, match=re.escape(path)):
        JsonFormatter(path)


def test_formatters_are_reachable_as_in_the_guide():
    import lazynb as lazyllm

    assert lazyllm.formatter.JsonFormatter is JsonFormatter
    for name in formatter.__all__:
        assert hasattr(lazyllm.formatter, name)


keys = st.text(max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
bounds = st.none() | st.integers(-5, 5)


def quoted(key):
    quote = '"' if "'" in key else "'"
    return quote + re.sub(r"([\\'\"])", r"\\\1", key) + quote


@st.composite
def steps(draw, value):
    """Draw a path that fits a value, and the plain Python that it stands for."""
    if not isinstance(value, dict | list) or not value or draw(st.booleans()):
        return "", value
    if isinstance(value, list) and draw(st.booleans()):
        start, stop, step = draw(bounds), draw(bounds), draw(bounds.filter(lambda n: n != 0))
        text = ":".join("" if n is None else str(n) for n in (start, stop, step))
        return f"[{text}]", value[slice(start, stop, step)]
    known = list(value) if isinstance(value, dict) else range(-len(value), len(value))
    chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
    written = [quoted(key) if isinstance(key, str) else str(key) for key in chosen]
    form = draw(st.sampled_from(["item", "list", "dict"]))
    if form == "item":
        rest, result = draw(steps(value[chosen[0]]))
        return f"[{written[0]}]{rest}", result
    if form == "dict" and isinstance(value, dict):
        return f"{{{','.join(written)}}}", {key: value[key] for key in chosen}
    return f"[{', '.join(written)},]", [value[key] for key in chosen]


@given(st.data(), json_values)
def test_a_path_equals_the_plain_python_expression(data, value):
    path, expected = data.draw(steps(value))
    assert JsonFormatter(path)(value if not isinstance(value, str) else [value]) == (
        expected if not isinstance(value, str) else [value]
    )


@given(st.data(), st.lists(json_values, min_size=1, max_size=4), bounds, bounds)
def test_a_slice_maps_the_rest_of_the_path_over_the_list(data, items, start, stop):
    inner = data.draw(json_values)
    rest, _ = data.draw(steps(inner))
    assume(not isinstance(inner, str))
    rows = [inner] * len(items)
    piece = f"{'' if start is None else start}:{'' if stop is None else stop}"
    expected = [JsonFormatter(rest)(row) for row in rows[start:stop]]
    assert JsonFormatter(f"[{piece}]{rest}")(rows) == expected


@given(st.dictionaries(keys, st.lists(st.integers(), min_size=1), min_size=1))
def test_braces_map_the_rest_of_the_path_over_the_values(table):
    names = ", ".join(map(quoted, table))
    first = {key: row[0] for key, row in table.items()}
    assert JsonFormatter(f"{{{names}}}[0]")(table) == first
    assert JsonFormatter("{:}[0]")(table) == first
    assert JsonFormatter("[:][0]")(table) == [*first.values()]
    assert JsonFormatter(f"[{names},][0]")(table) == [*first.values()]


slices = st.builds(slice, bounds, bounds, bounds.filter(lambda n: n != 0))
rows = st.fixed_dictionaries({"a": json_values, "b c": json_values})


def written(piece):
    numbers = (piece.start, piece.stop, piece.step)
    return f"[{':'.join('' if n is None else str(n) for n in numbers)}]"


@given(st.lists(st.lists(rows, max_size=4), max_size=4), slices, slices)
def test_slices_in_slices_equal_the_plain_python_expression(table, outer, inner):
    path = written(outer) + written(inner)
    assert JsonFormatter(path)(table) == [line[inner] for line in table[outer]]
    assert JsonFormatter(f"{path}[a]")(json.dumps(table)) == [
        [row["a"] for row in line[inner]] for line in table[outer]
    ]
    assert JsonFormatter(f"{path}[b c, a]")(table) == [
        [[row["b c"], row["a"]] for row in line[inner]] for line in table[outer]
    ]
    assert JsonFormatter(f"{path}{{a}}")(table) == [
        [{"a": row["a"]} for row in line[inner]] for line in table[outer]
    ]
