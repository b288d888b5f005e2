"""Formatters: values found in what a model says."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazynb.errors import LazynbError, OptionError
from lazynb.formatter import (
    FileFormatter,
    Formatter,
    JsonFormatter,
    PythonFormatter,
    StrFormatter,
    YamlFormatter,
)
from lazynb.query import Query, encode_query_with_filepaths

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=15,
).filter(lambda value: isinstance(value, dict | list))
prose = st.text(
    alphabet=st.characters(exclude_characters="[]{}()\"`'“”„", codec="utf-8"), max_size=40
)


@given(values, prose, prose, st.sampled_from([None, 2]), st.booleans())
def test_json_in_any_prose_is_found(value, before, after, indent, plain):
    written = json.dumps(value, indent=indent, ensure_ascii=plain)
    assert JsonFormatter()(f"{before} {written} {after}") == value


@given(values, prose, prose, st.sampled_from(["json", "JSON", "", "json title=x"]), st.booleans())
def test_json_in_any_fence_is_found(value, before, after, language, closed):
    fence = f"```{language}\n{json.dumps(value, indent=2)}\n" + ("```\n" + after if closed else "")
    example = '{"not": "this"}'
    assert JsonFormatter()(f"{before} {example}\n{fence}") == value


@given(st.text(alphabet=st.sampled_from(list("{}[]\":, \n`a1\\'“”")), max_size=60))
def test_any_text_gives_a_value_or_an_error_of_ours(text):
    for formatter in (JsonFormatter(), YamlFormatter(), PythonFormatter()):
        with contextlib.suppress(LazynbError):
            formatter(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1', {"a": 1}),
        ('{"a": [1, 2], "b": ', {"a": [1, 2], "b": ""}),
        ('cut: {"items": [{"n": 1}, {"n": 2', {"items": [{"n": 1}, {"n": 2}]}),
        ("{'a': True, 'b': None}", {"a": True, "b": None}),
        ('Sure: {"a": 1, "b": [1, 2,],} bye', {"a": 1, "b": [1, 2]}),
        ('{a: 1, b: "x"}', {"a": 1, "b": "x"}),
        ('{"a": 1 // one\n}', {"a": 1}),
        ('{"a": "say "hi" now"}', {"a": 'say "hi" now'}),
        ('{"code": "line\nline"} done', {"code": "line\nline"}),
        ('[{"a": 1} {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ("{“a”: “b”}", {"a": "b"}),
        ('```json\n{"a": 1,}\n```', {"a": 1}),
    ],
)
def test_slightly_broken_json_is_repaired(text, value):
    assert JsonFormatter()(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('As [1] says: {"a": 2} and [3]', {"a": 2}),
        ("The list is [].", []),
        ('{not json: x} then {"a": 1}', {"a": 1}),
        ('{"a": 1} and {"b": 2}', {"a": 1}),
        ('{"a": 1,, } or {"b": 2}', {"b": 2}),
        ('```python\nx = {"q": 1}\n```\nso\n```json\n{"r": 2}\n```', {"r": 2}),
        ('```\nno json here\n```\n{"a": 1}', {"a": 1}),
        ('Here: ```json\n{"a": 1}\n``` {"b": 2}', {"a": 1}),
        ('{"md": "```json {} ```"}', {"md": "```json {} ```"}),
        ('<think>{"draft": 1}</think>{"final": 2}', {"final": 2}),
        ('\ufeff{"a": "{not} a [brace]"}', {"a": "{not} a [brace]"}),
        ("42", 42),
        ('"text"', "text"),
    ],
)
def test_of_several_candidates_the_right_one_is_taken(text, value):
    assert JsonFormatter()(text) == value


def test_deep_json_is_found_whole():
    value = [[[["x"]]]]
    for _ in range(60):
        value = [value]
    for indent in (None, 4):
        assert JsonFormatter()(f"Deep: {json.dumps(value, indent=indent)}.") == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello world",
        "{name}",
        "[see below]",
        "the set {1, 2}",
        '["Foo" is a word]',
        "[[Page]] and \\frac{a}{b}",
        "function() { return 1; }",
        'f"{x:.2f}" and {see: below}',
        "[link](http://a.b)",
        "p { color: red; }",
    ],
)
def test_prose_is_never_made_into_json(text):
    with pytest.raises(LazynbError, match="There is no JSON"):
        JsonFormatter()(text)


def test_the_error_shows_the_text_but_not_a_whole_book():
    with pytest.raises(LazynbError, match="I would rather not"):
        JsonFormatter()("I would rather not.")
    with pytest.raises(LazynbError) as caught:
        JsonFormatter()("word " * 10_000)
    assert len(str(caught.value)) < 600


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["[" * 20_000, '{"a":' * 4_000, '{"a": "x' * 3_000, "```\n" * 9_000]
)
def test_a_text_of_brackets_does_not_take_forever(text):
    for formatter in (JsonFormatter(), PythonFormatter()):
        with contextlib.suppress(LazynbError):
            formatter(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, y]", {"a": 1, "b": ["x", "y"]}),
        ("Here:\n```yaml\n- 1\n- 2\n```\nDone: yes", [1, 2]),
        ("Here:\n```\na: 1\n```", {"a": 1}),
        ("<think>a: 2</think>\na: 1", {"a": 1}),
        ("3", 3),
    ],
)
def test_yaml_is_found(text, value):
    assert YamlFormatter()(text) == value


@pytest.mark.parametrize(
    "text", ["hello", "", "a: b: c", "!!python/object/apply:os.system ['exit 1']", "a: [", "{a: 1"]
)
def test_what_is_no_yaml_is_an_error(text):
    with pytest.raises(LazynbError, match="There is no YAML"):
        YamlFormatter()(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': (1, 2), 'b': {3}}", {"a": (1, 2), "b": {3}}),
        ("That is ('a', {'b'}, None).", ("a", {"b"}, None)),
        ("```python\n[1, 2]\n```", [1, 2]),
        ("x = {'a': 1}", {"a": 1}),
        ("as in (3) and (see {'a': \"it's }\"})", {"a": "it's }"}),
        ("-1.5", -1.5),
    ],
)
def test_python_literals_are_found(text, value):
    assert PythonFormatter()(text) == value


@pytest.mark.parametrize(
    "text", ["__import__('os').getcwd()", "print(1)", "f()", "x[0]", "[x for x in y]", "{a: 1}"]
)
def test_python_is_read_never_run(text):
    with pytest.raises(LazynbError, match="There is no Python literal"):
        PythonFormatter()(text)


@given(values)
def test_python_formatter_reads_what_repr_writes(value):
    assert PythonFormatter()(f"Answer: {value!r}") == value


def test_all_value_formatters_take_a_path():
    assert YamlFormatter("[a][1]")("a: [1, 2]") == 2
    assert PythonFormatter("[:][0]")("[(1, 2), (3, 4)]") == [1, 3]
    assert JsonFormatter("[:][a]")('[{"a": 1}, {"a": 2}]') == [1, 2]


def test_str_formatter():
    assert StrFormatter()("text") == "text"
    assert (JsonFormatter() | StrFormatter())('x {"名": 1}') == '{"名": 1}'
    assert StrFormatter()({1}) == "{1}"


def test_any_two_can_be_chained():
    chain = JsonFormatter("[:][n]") | sum | (lambda total: total + 1) | StrFormatter()
    assert chain('[{"n": 1}, {"n": 2}]') == "4"
    assert (str.strip | YamlFormatter("[a]"))("  {a: 1} ") == 1
    assert ((lambda a, b: [a, b]) | JsonFormatter("[1]"))(1, 2) == 2
    assert (str | JsonFormatter())([1]) == [1]
    assert repr(JsonFormatter("[0]") | len) == "JsonFormatter('[0]') | len"
    with pytest.raises(TypeError):
        JsonFormatter() | 3


def test_chaining_leaves_the_parts_as_they_were():
    first = JsonFormatter() | len
    second = first | str
    assert first("[1, 2]") == 2
    assert second("[1, 2]") == "2"


def test_what_joins_in_its_own_way_is_left_to_it():
    class Flow:
        def __call__(self, value):
            return value

        def __ror__(self, other):
            return ("flow", other)

    formatter = JsonFormatter()
    assert formatter | Flow() == ("flow", formatter)


def test_a_formatter_of_ones_own():
    class Upper(Formatter):
        def format(self, value):
            return value.upper()

    assert (Upper() | str.strip)(" a ") == "A"


wire = '<lazyllm-query>{"query": "aha", "files": ["a.png"]}'
opened = {"query": "aha", "files": ["a.png"]}


def test_file_formatter_opens_makes_and_merges():
    assert FileFormatter()(wire) == opened
    assert FileFormatter("encode")(opened) == wire
    assert isinstance(FileFormatter("encode")(opened), Query)
    for same in ("hi", ["a", "b"]):
        assert FileFormatter("decode")(same) == FileFormatter("encode")(same) == same
    assert FileFormatter("decode")("hi", wire) == ("hi", opened)
    merge = FileFormatter(formatter="merge")
    assert merge("hi") == "hi"
    assert merge("hi", "ho") == "hiho"
    assert merge(wire, "!", opened) == encode_query_with_filepaths("aha!aha", ["a.png", "a.png"])


def test_file_formatter_has_three_modes():
    with pytest.raises(OptionError, match=r"decod(.|\n)*decode"):
        FileFormatter("decod")
