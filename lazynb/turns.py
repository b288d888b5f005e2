"""Conversations in the forms in which people write them, as OpenAI messages.

[["用户", "你好"], ["助手", "你好"]]      role and text: every first element is a role word
[["Hello", "Hi, how can I help?"]]        what the user said and what the assistant answered
[{"role": "user", "content": "Hello"}]    messages, sent as they are
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynb import query
from lazynb.errors import LazynbError

if TYPE_CHECKING:
    from collections.abc import Sequence

ROLES = {
    "用户": "user",
    "user": "user",
    "human": "user",
    "助手": "assistant",
    "assistant": "assistant",
    "ai": "assistant",
    "系统": "system",
    "system": "system",
}


def turns(history: Sequence[Any] | None) -> list[dict[str, Any]]:
    """Return the messages of a history.

    Raises
    ------
    LazynbError
        An item has none of the forms: the message has its index.
    """
    if history is None:
        return []
    if not isinstance(history, list | tuple):
        raise LazynbError(f"A history cannot be a {type(history).__name__}", hint=_FORMS)
    for index, item in enumerate(history):
        if not (is_message(item) or _is_two_texts(item)):
            raise LazynbError(
                f"Item {index} of the history does not fit: {item!r:.200}", hint=_FORMS
            )
    named = all(item[0].lower() in ROLES for item in history if not isinstance(item, dict))
    return [message for item in history for message in _turn(item, named=named)]


def is_message(item: Any) -> bool:
    """Tell whether an item is an OpenAI message."""
    return (
        isinstance(item, dict)
        and isinstance(item.get("role"), str)
        and ("content" in item or "tool_calls" in item)
    )


def _is_two_texts(item: Any) -> bool:
    match item:
        case [str(), str()]:
            return True
    return False


def _turn(item: Any, *, named: bool) -> list[dict[str, Any]]:
    if isinstance(item, dict):
        return [dict(item)]
    if named:
        return [_message(ROLES[item[0].lower()], item[1])]
    return [_message("user", item[0]), _message("assistant", item[1])]


def _message(role: str, text: str) -> dict[str, Any]:
    """Return one message; files go along only with what the user said."""
    if role == "user":
        return {"role": role, "content": query.content(*query.split(text))}
    return {"role": role, "content": str.__str__(text)}


_FORMS = (
    "Items are [role, text] (用户/user, 助手/assistant, 系统/system), [user, assistant], "
    "or OpenAI messages."
)
