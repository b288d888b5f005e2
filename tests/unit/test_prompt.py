"""What a prompt makes of an input: the messages that are sent."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazynb.errors import LazynbError, OptionError
from lazynb.prompt import Prompt
from lazynb.session import Chunk

braced = st.text(alphabet=st.sampled_from(list('{}{}ab1_ "名:\\$\n')), max_size=30)
anything = (st.text() | braced).filter(lambda text: not text.lstrip().startswith("<lazyllm-query>"))
names = st.sampled_from(["name", "用户名", "_x", "q1"])


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def test_without_a_prompt_the_input_goes_alone():
    assert Prompt().messages("hello") == [user("hello")]
    assert Prompt("").messages("hello") == [user("hello")]
    assert Prompt({}).messages("hello") == [user("hello")]


def test_a_string_prompt_is_the_system_message():
    assert Prompt("Be brief.").messages("hello") == [system("Be brief."), user("hello")]


def test_the_guides_prompts():
    parts = {"system": "你是一个专业的{system_role}", "user": "{user_input}"}
    given_values = {"system_role": "编程助手", "user_input": "根据用户的需求编程"}
    sent = [system("你是一个专业的编程助手"), user("根据用户的需求编程")]
    assert Prompt(parts).messages(given_values) == sent

    history = [["用户", "你好"], ["助手", "你好！有什么可以帮助你的吗？"]]
    assert Prompt("继续对话", history=history).messages("好") == [
        system("继续对话"),
        user("你好"),
        {"role": "assistant", "content": "你好！有什么可以帮助你的吗？"},
        user("好"),
    ]


def test_a_string_fills_the_only_slot_of_user():
    prompt = Prompt({"system": "About {topic}.", "user": "Explain {topic}, please: {topic}"})
    assert prompt.messages("cats") == [
        system("About cats."),
        user("Explain cats, please: cats"),
    ]


def test_the_key_that_is_no_slot_is_the_user_message():
    prompt = Prompt("Answer in {language}.")
    for key in ("input", "query", "whatever"):
        assert prompt.messages({"language": "French", key: "Hi"})[1] == user("Hi")


def test_slots_that_take_every_key_make_the_text_the_question():
    assert Prompt("Translate {text}.").messages({"text": "chat"}) == [user("Translate chat.")]


def test_a_user_part_without_slots_is_sent_when_nothing_else_is_said():
    assert Prompt({"user": "Tell a joke."}).messages("") == [user("Tell a joke.")]


@pytest.mark.parametrize(
    ("prompt", "given_input", "named"),
    [
        ("As {role}, {mood}.", "hi", "{role}, {mood}"),
        ("As {role}.", {"rolle": "king"}, "{role}"),
        ("As {role}.", {"role": "king", "a": 1, "b": 2}, "'a', 'b'"),
        ({"user": "{a} and {b}"}, "hi", "{a}, {b}"),
        ({"user": "{a}"}, {"a": "1", "extra": "2"}, "'extra'"),
        ({"user": "Tell a joke."}, "about cats", "no slot"),
        ({"user": "{a}"}, {"a": None}, "{a} is None"),
        ("As {role}.", [{"role": "user", "content": "hi"}], "{role}"),
        (None, ["hi"], "Item 0"),
        (None, [{"role": "user", "content": "hi"}, {"text": "hi"}], "Item 1"),
        (None, None, "None"),
        (None, b"bytes", "bytes"),
        (None, [], "empty"),
        ("Be brief.", {}, "empty"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(prompt, given_input, named):
    with pytest.raises(LazynbError, match=re.escape(named)):
        Prompt(prompt).messages(given_input)


@pytest.mark.parametrize("prompt", [3, ["x"], {"usr": "x"}, {"system": 3}])
def test_what_is_no_prompt_is_an_error(prompt):
    with pytest.raises(OptionError):
        Prompt(prompt)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": 1}}',
        "{{name}}",
        "{ name }",
        "{}",
        "{1}",
        "function f() { return {}; }",
        "{x:.2f} {x!r} {x.y} {a-b}",
        "{{{name}}}",
    ],
)
def test_other_braces_stay_as_they_are(text):
    assert Prompt(text).messages("hi")[0] == system(text)


def test_a_slot_inside_json_is_filled():
    sent = Prompt('{"name": {name}}').messages({"name": "{name}", "input": "go"})
    assert sent == [system('{"name": {name}}'), user("go")]
    assert Prompt('{"name": {name}}').messages({"name": 3})[0] == user('{"name": 3}')


def test_messages_are_sent_as_they_are():
    given_messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    sent = Prompt("Be brief.", history=[["x", "y"]]).messages(given_messages)
    assert sent[0] == system("Be brief.")
    assert sent[3:] == given_messages
    sent[3]["content"] = "changed"
    assert given_messages[0]["content"] == "a"


def test_streamed_chunks_arrive_without_their_colours():
    sent = Prompt({"user": "{x}!"}).messages(Chunk("red", color="red"))
    assert sent == [user("red!")]
    [message] = Prompt().messages(Chunk("red", color="red"))
    assert type(message["content"]) is str
    assert message == user("red")


def test_a_prompt_does_not_change_with_what_it_was_made_from():
    parts, history = {"system": "a"}, [["x", "y"]]
    prompt = Prompt(parts, history=history)
    parts["system"] = "b"
    history.append(["z", "z"])
    assert [message["content"] for message in prompt.messages("hi")] == ["a", "x", "y", "hi"]
    with pytest.raises(AttributeError):
        prompt.value = "c"


def slot_names(text):
    """Find the slots without a regular expression: a name in braces, not doubled on both sides."""
    found = []
    for start, char in enumerate(text):
        end = text.find("}", start)
        name = text[start + 1 : end]
        doubled = text[start - 1 : start] == "{" and text[end + 1 : end + 2] == "}"
        if char == "{" and end > start and name.isidentifier() and not doubled:
            found.append(name)
    return found


@given(anything, anything)
def test_any_text_arrives_as_it_was_or_fails_by_name(prompt, said):
    slots = slot_names(prompt)
    if slots:
        with pytest.raises(LazynbError, match=re.escape("{" + slots[0] + "}")):
            Prompt(prompt).messages(said)
    elif prompt:
        assert Prompt(prompt).messages(said) == [system(prompt), user(said)]


@given(anything)
def test_any_input_arrives_as_it_was(said):
    assert Prompt().messages(said) == [user(said)]
    assert Prompt({"user": "Q: {q}"}).messages(said) == [user(f"Q: {said}")]
    assert (
        Prompt("{a}").messages({"a": said, "input": said}) == [system(said), user(said)][not said :]
    )


@given(st.lists(st.text(alphabet='a1 "名}{').filter(lambda t: not slot_names(f"x{t}x")) | names.map(lambda n: ("slot", n)), max_size=8), st.dictionaries(names, anything), anything)  # fmt: skip
def test_slots_are_filled_once_and_nothing_else_changes(pieces, values, said):
    template = "".join(f" {{{p[1]}}} " if isinstance(p, tuple) else f" {p} " for p in pieces)
    used = {piece[1] for piece in pieces if isinstance(piece, tuple)}
    if set(slot_names(template)) != used or not template:
        return
    values = {name: values.get(name, "{name}{q1}") for name in used}
    expected = "".join(f" {values[p[1]]} " if isinstance(p, tuple) else f" {p} " for p in pieces)
    assert Prompt(template).messages({**values, "said": said}) == [system(expected), user(said)]
    if used:
        assert Prompt({"user": template}).messages(values) == [user(expected)]


@given(anything, anything, anything, anything)
def test_both_parts_and_the_history_arrive_as_they_were_or_fail_by_name(
    instructions, template, answered, said
):
    prompt = Prompt(
        {"system": instructions, "user": f"{template} {{q}}"}, history=[["x", answered]]
    )
    names = [*slot_names(instructions), *slot_names(f"{template} {{q}}")]
    missing = [name for name in names if name != "q"]
    if missing:
        with pytest.raises(LazynbError, match=re.escape(f"{{{missing[0]}}}")):
            prompt.messages({"q": said})
        return
    first = [system(instructions.replace("{q}", said))] if "q" in slot_names(instructions) else []
    first = first or ([system(instructions)] if instructions else [])
    turns = [user("x"), {"role": "assistant", "content": answered}]
    assert prompt.messages({"q": said}) == [*first, *turns, user(f"{template} {said}")]
