"""The forms of a training row: how each is recognised, checked and brought into messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynb.training.data import Shape

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
}


class Wrong(ValueError):  # noqa: N818 - it never leaves this package
    """Why a row cannot be used."""


def recognise(rows: list[Any]) -> Shape | None:
    """Return the form of some rows; None when it is none that is known."""
    if not all(isinstance(row, dict) for row in rows):
        return None
    keys = set.intersection(*(set(row) for row in rows))
    if {"query", "pos"} <= keys:
        return "retrieval"
    if {"chosen", "rejected"} <= keys:
        return "preference"
    if not keys & {"messages", "conversations", "instruction", "prompt"}:
        return "text" if "text" in keys else None
    return "feedback" if keys & {"label", "kto_tag"} else "messages"


def chat(row: Any) -> dict[str, Any]:
    """Return a row as messages that end with an answer."""
    messages = _messages(row)
    if messages[-1]["role"] != "assistant":
        raise Wrong(f"it ends with a message of {messages[-1]['role']!r}, not with an answer")
    return {"messages": messages, **_media(row)}


def preference(row: Any) -> dict[str, Any]:
    """Return a row as a prompt with a better and a worse answer."""
    row = _mapping(row)
    prompt = _messages({key: row[key] for key in row if key not in ("chosen", "rejected")})
    if prompt[-1]["role"] != "user":
        raise Wrong("the messages before chosen and rejected must end with the user's")
    return {"messages": prompt, **{key: _answer(row, key) for key in ("chosen", "rejected")}}


def feedback(row: Any) -> dict[str, Any]:
    """Return a row as a conversation that was liked or not."""
    row = _mapping(row)
    label = row.get("label", row.get("kto_tag"))
    if not isinstance(label, bool):
        raise Wrong(f"its label is {label!r}, not true or false")
    return {**chat(row), "label": label}


def text(row: Any) -> dict[str, Any]:
    """Return a row of plain text."""
    return {"text": _words(_mapping(row).get("text"), "text")}


def retrieval(row: Any) -> dict[str, Any]:
    """Return a row as a query with texts that answer it and texts that do not."""
    row = _mapping(row)
    triple = {"query": _words(row.get("query"), "query")}
    for key in ("pos", "neg"):
        texts = row.get(key) if row.get(key) is not None else []
        texts = [texts] if isinstance(texts, str) else list(texts)
        triple[key] = [_words(item, key) for item in texts]  # type: ignore[assignment]
    if not triple["pos"]:
        raise Wrong("it has no text in pos")
    return triple


CHECKS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "messages": chat,
    "preference": preference,
    "feedback": feedback,
    "text": text,
    "retrieval": retrieval,
}


def _mapping(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise Wrong(f"it is a {type(row).__name__}, not an object with fields")
    return row


def _words(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Wrong(f"its {name} is {value!r:.60}, not a text")
    if not value.strip():
        raise Wrong(f"its {name} is empty")
    return value


def _media(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("images", "videos", "audios", "tools") if row.get(key)}


def _answer(row: dict[str, Any], key: str) -> dict[str, Any]:
    value = row[key]
    if isinstance(value, list) and value:  # a whole conversation: its last message
        value = value[-1]
    if isinstance(value, dict):
        value = value.get("content", value.get("value"))
    return {"role": "assistant", "content": _words(value, key)}


def _messages(row: Any) -> list[dict[str, Any]]:
    row = _mapping(row)
    if "messages" in row or "conversations" in row:
        key = "messages" if "messages" in row else "conversations"
        return _conversation(row[key], row.get("system"))
    return _alpaca(row)


def _conversation(turns: Any, system: Any) -> list[dict[str, Any]]:
    if not isinstance(turns, list) or not turns:
        raise Wrong("its conversation is empty")
    messages = [] if not system else [{"role": "system", "content": _words(system, "system")}]
    for number, turn in enumerate(turns, 1):
        turn = _mapping(turn)  # noqa: PLW2901
        role = turn.get("role", turn.get("from"))
        if role not in ROLES:
            raise Wrong(f"message {number} has the role {role!r}")
        content = turn.get("content", turn.get("value"))
        messages.append({"role": ROLES[role], "content": _words(content, f"message {number}")})
    _check_order(messages)
    return messages


def _check_order(messages: list[dict[str, Any]]) -> None:
    """Refuse what no trainer takes: answers that answer nothing, and questions nobody answers in between."""
    spoken = [message["role"] for message in messages if message["role"] != "system"]
    if [m["role"] for m in messages].count("system") > (messages[0]["role"] == "system"):
        raise Wrong("a system message stands after other messages")
    for number, role in enumerate(spoken):
        asked = role in {"user", "tool"}
        if asked != (number % 2 == 0):
            raise Wrong(f"message {number + 1} is of {role!r}: user and assistant must take turns")


def _alpaca(row: dict[str, Any]) -> list[dict[str, Any]]:
    question = _words(row.get("instruction", row.get("prompt")), "instruction")
    if extra := row.get("input") or row.get("query"):
        question = f"{question}\n{_words(extra, 'input')}"
    messages = []
    if row.get("system"):
        messages.append({"role": "system", "content": _words(row["system"], "system")})
    for pair in row.get("history") or []:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:  # noqa: PLR2004
            raise Wrong("its history holds something that is no [question, answer] pair")
        messages += _pair(*pair)
    messages.append({"role": "user", "content": question})
    answer = next((row[key] for key in ("output", "response", "completion") if key in row), None)
    if answer is not None:
        messages.append({"role": "assistant", "content": _words(answer, "output")})
    return messages


def _pair(question: Any, answer: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": _words(question, "history")},
        {"role": "assistant", "content": _words(answer, "history")},
    ]
