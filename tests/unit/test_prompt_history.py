"""Histories in the forms in which people write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazynb.errors import LazynbError
from lazynb.prompt import Prompt
from lazynb.query import encode_query_with_filepaths
from lazynb.turns import ROLES, turns

texts = st.text().filter(lambda text: not text.lstrip().startswith("<lazyllm-query>"))


@pytest.mark.parametrize(("word", "role"), [*ROLES.items(), ("User", "user"), ("AI", "assistant")])
def test_role_words(word, role):
    assert turns([[word, "text"]]) == [{"role": role, "content": "text"}]


def test_pairs():
    assert turns([("hello", "hi"), ("user", "hm")]) == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "user"},
        {"role": "assistant", "content": "hm"},
    ]


def test_messages_pass_as_they_are_also_among_others():
    call = {"role": "assistant", "tool_calls": [{"id": "1"}]}
    result = {"role": "tool", "content": "42", "tool_call_id": "1"}
    assert turns([["user", "x"], call, result]) == [{"role": "user", "content": "x"}, call, result]


def test_the_prompts_own_history_comes_first():
    sent = Prompt("S", history=[["a", "b"]]).messages("e", history=[["c", "d"]])
    assert "".join(message["content"] for message in sent) == "Sabcde"


@pytest.mark.parametrize(
    ("history", "named"),
    [
        ([["a", "b"], "c"], "Item 1"),
        ([["a"]], "Item 0"),
        ([["a", "b", "c"]], "Item 0"),
        ([["a", None]], "Item 0"),
        ([["a", "b"], ["a", "b"], {"content": "x"}], "Item 2"),
        ([{"role": "user"}], "Item 0"),
        ("hello", "a str"),
        ({"role": "user", "content": "x"}, "a dict"),
    ],
)
def test_what_does_not_fit_is_an_error_with_its_index(history, named):
    with pytest.raises(LazynbError, match=re.escape(named)):
        Prompt(history=history)
    with pytest.raises(LazynbError, match=re.escape(named)):
        Prompt().messages("hi", history=history)


def test_files_go_along_with_what_the_user_said_never_with_an_answer(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cret")
    query = encode_query_with_filepaths("look", str(secret))
    asked, answered = turns([["look", query], [query, "fine"]])[1:3]
    assert answered["content"][1]["text"].endswith("s3cret")
    assert asked["content"] == query


@given(st.lists(st.tuples(st.sampled_from(sorted(ROLES)), texts)))
def test_any_role_and_text_arrives(items):
    assert turns(items) == [{"role": ROLES[word], "content": text} for word, text in items]


@given(st.lists(st.tuples(texts.filter(lambda text: text.lower() not in ROLES), texts)))
def test_any_pairs_arrive(pairs):
    assert [m["content"] for m in turns(pairs)] == [text for pair in pairs for text in pair]
