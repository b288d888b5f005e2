"""A prompt: what is said to a model around each input, as the OpenAI messages that are sent.

A prompt is a text, the system message, or a dict of `system` and `user`. In both, `{name}` is a
slot. A dict input fills the slots; every other brace stays as it is (JSON, code, `{{name}}`), and a
value that is put in is never looked at again, so braces inside it are safe. Nothing is added that
the user did not write: `Prompt()` sends the input alone.

What becomes the user message:

- with `user` in the prompt: its text, filled. A string input fills its only slot;
- without: the string input, or in a dict the one value whose key is no slot, whatever its name
  (`dict(topic="cats", input="Tell me more")`). When the slots take every key, the filled text is
  itself what is asked, and is sent as the user message.

A slot without a value, and a key without a slot, are errors that name it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lazynb import query
from lazynb.errors import LazynbError, OptionError
from lazynb.slots import braced, check, example, fill, slots
from lazynb.turns import is_message, turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Message = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """What is sent with every input.

    Parameters
    ----------
    value : str, dict or None
        The system message; or a dict with `system` and `user`; or None to send the input as it is.
    history : list, optional
        Earlier turns, sent before every input: `[role, text]` items, `[user, assistant]` pairs or
        OpenAI messages.

    Raises
    ------
    OptionError
        The prompt is neither text nor a dict of `system` and `user`.
    LazynbError
        An item of the history does not fit; the message has its index.

    Examples
    --------
    >>> Prompt("Answer in {language}.").messages({"language": "French", "input": "Hello"})
    [{'role': 'system', 'content': 'Answer in French.'}, {'role': 'user', 'content': 'Hello'}]
    """

    value: str | Mapping[str, str] | None = None
    history: Sequence[Any] | None = None
    _system: str = field(init=False, repr=False, compare=False)
    _user: str = field(init=False, repr=False, compare=False)
    _turns: tuple[Message, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        system, user = _texts(self.value)
        object.__setattr__(self, "_system", system)
        object.__setattr__(self, "_user", user)
        object.__setattr__(self, "_turns", tuple(turns(self.history)))

    def messages(self, given: Any, *, history: Sequence[Any] | None = None) -> list[Message]:
        """Return the messages that an input is sent as.

        Parameters
        ----------
        given : str, dict or list
            The input: text (files included, see `encode_query_with_filepaths`), values of the
            slots, or OpenAI messages, which are sent as they are after system message and history.
        history : list, optional
            Turns after those of the prompt.

        Raises
        ------
        LazynbError
            A slot has no value, a key no slot, a file is missing, or the input is none of these.
        """
        if isinstance(given, list | dict) and not (given or self._user):
            raise LazynbError("The input is empty", hint="Give text, a dict or messages.")
        if isinstance(given, list):
            check(slots(self._system), {})
            system, asked = self._system, _messages(given)
        else:
            system, content = self._fill(given)
            asked = [{"role": "user", "content": content}]
        opening = [{"role": "system", "content": system}] if system else []
        return [*opening, *(dict(turn) for turn in self._turns), *turns(history), *asked]

    def _fill(self, given: Any) -> tuple[str, str | list[Message]]:
        """Return the system message and the content of the user message."""
        values, said = self._sort_keys(given) if isinstance(given, dict) else self._sort(given)
        texts, files = _open(values)
        system, text = fill(self._system, texts), fill(self._user, texts)
        if said:
            text, more = _text("The input", *said)
            files += more
        elif not self._user:
            system, text = "", system
        return system, query.content(text, files)

    def _sort(self, given: Any) -> tuple[Mapping[str, Any], list[Any]]:
        """Return the values of the slots, and what else is said: at most one thing."""
        if not self._user:
            self._check({})
            return {}, [given]
        names = slots(self._user)
        if len(names) > 1:
            raise LazynbError(
                f"The user part of the prompt has several slots: {braced(names)}",
                hint=f"Call with a dict: {example(names)}.",
            )
        if not names and given != "":
            raise LazynbError(
                "The user part of the prompt has no slot for the input",
                hint="Write {input} where it goes.",
            )
        values = dict.fromkeys(names, given)
        self._check(values)
        return values, []

    def _sort_keys(self, given: dict[str, Any]) -> tuple[Mapping[str, Any], list[Any]]:
        """As `_sort`, for a dict: the value whose key is no slot is the user message."""
        self._check(given)
        names = slots(self._system, self._user)
        values = {name: given[name] for name in names}
        rest = [key for key in given if key not in values]
        if len(rest) > (0 if self._user else 1):
            hint = f"Slots of the prompt: {braced(names) or 'none'}."
            if not self._user:
                hint += " One more key is the user message, but there are several."
            raise LazynbError(
                f"No slot in the prompt for {', '.join(repr(key) for key in rest)}", hint=hint
            )
        return values, [given[key] for key in rest]

    def _check(self, values: Mapping[str, Any]) -> None:
        also = () if self._user else ("input",)
        check(slots(self._system, self._user), values, also=also)


def _texts(value: Any) -> tuple[str, str]:
    """Return the system and the user part of a prompt."""
    if value is None or isinstance(value, str):
        return value or "", ""
    if not isinstance(value, dict):
        raise OptionError(
            f"A prompt cannot be a {type(value).__name__}",
            hint="Use text, dict(system=…, user=…), or None.",
        )
    for key, text in value.items():
        if key not in ("system", "user"):
            raise OptionError(f"A prompt has no part {key!r}", hint="Its parts: system, user.")
        if not isinstance(text, str | None):
            raise OptionError(f"The {key} part of the prompt is no text: {text!r}")
    return value.get("system") or "", value.get("user") or ""


def _messages(given: Any) -> list[Message]:
    """Return the messages of a list."""
    for index, item in enumerate(given):
        if not is_message(item):
            raise LazynbError(
                f"Item {index} of the input is no message: {item!r:.200}",
                hint="Messages: {'role': 'user', 'content': …}. Several inputs go to map().",
            )
    return [dict(message) for message in given]


def _open(values: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the values as text, and the files that came with them."""
    texts, files = {}, []
    for slot, value in values.items():
        texts[slot], more = _text(f"The value of {{{slot}}}", value)
        files += more
    return texts, files


def _text(what: str, value: Any) -> tuple[str, list[str]]:
    """Return the text and the files of a value; `what` names it in an error."""
    if value is None or isinstance(value, bytes):
        raise LazynbError(f"{what} is {value!r:.60}, not text", hint="Give a str.")
    if not isinstance(value, str):
        return str(value), []
    return query.split(value)
