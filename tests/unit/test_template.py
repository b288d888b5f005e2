"""`{name}` in a prompt, and all the braces that are something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazynb.errors import OptionError
from lazynb.notebook.template import substitute

NAMES = {
    "country": "France",
    "n": 3,
    "x": [1, 2],
    "d": {"k": "v"},
    "f": str.upper,
    "a": 1,
    "b": 2,
    "name": "{n}",
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("The capital of {country}?", "The capital of France?"),
        ("{n}{n}", "33"),
        ("{x[0]} {d['k']} {country.upper()} {f(country)}", "1 v FRANCE FRANCE"),
        ("{name}", "{n}"),  # a value is not read again
    ],
)
def test_a_variable_is_put_in(text, result):
    assert substitute(text, NAMES) == result


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "n": [2]}',
        "{unknown}",
        "{ n }",
        "{n:>5} {n!r}",
        "{a, b}",
        "{a: 1}",
        "{{n}} {{ n }}",
        "${n} $" + "{country}",
        r"x^{n} x_{n} \frac{n}{a} \sqrt{\frac{n}{a}}",
        "{k: v for k, v in d.items()} {x for x in x}",
        "function f() { return n }",
        "{len(x)}",  # a built-in is no variable of the user's
        "{n + 1}",
        "{",
        "}{",
        "{}",
    ],
)
def test_every_other_brace_stays(text):
    assert substitute(text, NAMES) == text


def test_an_expression_that_fails_is_named():
    with pytest.raises(OptionError, match=r"\{x\[9\]\}.*IndexError"):
        substitute("{x[9]}", NAMES)


@given(st.text(alphabet="{}nab$^_\\ \n:\"',[]()"))
def test_without_variables_any_text_stays(text):
    assert substitute(text, {}) == text


@given(st.text(), st.text())
def test_a_value_arrives_as_it_is(before, value):
    before = before.replace("{", "").replace("\\", "").rstrip("$^_")
    assert substitute(before + "{v}", {"v": value}) == before + value
