"""Paths into a value: `[0]`, `[1:3]`, `[:][name]`, `[a, b]`, `{a, b}`, in any depth.

    [i], [key]     that item of a list or dict; the next step goes on inside it
    [a:b:c]        those items of a list; the next step goes on inside each. `[:]`: also a dict's values
    [k1, k2]       a list of those items; the next step goes on inside each
    {k1, k2}       a dict of those keys; the next step goes on inside each value. `{:}`: all keys

A key with brackets, commas, colons, quotes or spaces at its ends is quoted: `['a, b']`. A number is an
index in a list and a key in a dict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from lazynb.errors import LazynbError, OptionError

_QUOTED = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_STEP = re.compile(rf"""\s*(\[|\{{)((?:{_QUOTED}|[^\[\]{{}}"'])*)(\]|\}})\s*""", re.DOTALL)
_ITEM = re.compile(rf"""\s*({_QUOTED}|[^,:"'\s](?:[^,:"']*[^,:"'\s])?)\s*(,|$)\s*""", re.DOTALL)
_SLICE = re.compile(r"\s*([+-]?\d+)?\s*:\s*([+-]?\d+)?\s*(?::\s*([+-]?\d+)?\s*)?")
_PAIRS = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class Step:
    """One step of a path: an item, a slice, a list of items, or a dict of keys."""

    kind: Literal["item", "slice", "list", "dict"]
    text: str
    keys: tuple[str, ...] = ()
    range: slice | None = None


def parse(path: str) -> tuple[Step, ...]:
    """Return the steps of a path; an empty path has none.

    Raises
    ------
    OptionError
        The path is not written as above.
    """
    steps, position = list[Step](), 0
    path = path.strip()
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or _PAIRS[match[1]] != match[3]:
            raise OptionError(
                f"The path {path!r} cannot be read from {path[position:]!r} on", hint=_HINT
            )
        steps.append(_step(match[0].strip(), match[2], path))
        position = match.end()
    return tuple(steps)


def _step(text: str, inner: str, path: str) -> Step:
    if match := _SLICE.fullmatch(inner):
        numbers = [int(number) if number else None for number in match.groups()]
        whole = slice(*numbers)
        if whole.step != 0 and (text[0] == "[" or whole == slice(None)):
            return Step("slice" if text[0] == "[" else "dict", text, range=whole)
        raise OptionError(f"{text} in the path {path!r} is no slice", hint=_HINT)
    keys, position = list[str](), 0
    while match := _ITEM.match(inner, position):
        keys.append(_key(match[1]))
        position = match.end()
    if not keys or position < len(inner):
        raise OptionError(f"{text} in the path {path!r} cannot be read", hint=_HINT)
    if text[0] == "{":
        return Step("dict", text, tuple(keys))
    return Step("list" if "," in _bare(inner) else "item", text, tuple(keys))


def _key(item: str) -> str:
    return re.sub(r"\\(.)", r"\1", item[1:-1], flags=re.DOTALL) if item[0] in "\"'" else item


def _bare(inner: str) -> str:
    return re.sub(_QUOTED, "", inner, flags=re.DOTALL)


def follow(value: Any, steps: tuple[Step, ...]) -> Any:
    """Return what lies at the end of a path.

    Raises
    ------
    LazynbError
        A step does not fit the value there: the message names the step and shows the value.
    """
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if step.kind == "item":
        return follow(_item(value, step.keys[0], step), rest)
    if step.kind == "dict":
        if not isinstance(value, dict):
            raise _misfit(step, value, "a dict is needed there")
        keys = [_found(value, key, step) for key in step.keys] or list(value)
        return {key: follow(value[key], rest) for key in keys}
    parts = [follow(part, rest) for part in _parts(value, step)]
    return tuple(parts) if isinstance(value, tuple) else parts


def _parts(value: Any, step: Step) -> list[Any]:
    if step.kind == "list":
        return [_item(value, key, step) for key in step.keys]
    if isinstance(value, dict) and step.range == slice(None):
        return [*value.values()]
    if not isinstance(value, list | tuple):
        raise _misfit(step, value, "a list is needed there")
    return [*value[step.range or slice(None)]]


def _item(value: Any, key: str, step: Step) -> Any:
    if isinstance(value, dict):
        return value[_found(value, key, step)]
    if not isinstance(value, list | tuple):
        raise _misfit(step, value, "a list or dict is needed there")
    if not re.fullmatch(r"[+-]?\d+", key):
        raise _misfit(step, value, f"{key!r} is no index of a list")
    try:
        return value[int(key)]
    except IndexError:
        raise _misfit(step, value, f"the list has length {len(value)}") from None


def _found(value: dict[Any, Any], key: str, step: Step) -> Any:
    """Return the key as the dict has it: YAML and Python have numbers as keys, too."""
    if key in value:
        return key
    for known in value:
        if not isinstance(known, str) and str(known) == key:
            return known
    raise _misfit(step, value, f"there is no key {key!r}")


def _misfit(step: Step, value: Any, why: str) -> LazynbError:
    shown = repr(value)
    return LazynbError(
        f"The step {step.text} does not fit: {why}",
        hint=f"The value there: {shown if len(shown) <= 200 else shown[:200] + '…'}",  # noqa: PLR2004
    )


_HINT = "Steps are [0], [key], [1:3], [:], [a, b] and {a, b}; other keys are quoted: ['a: b']."
