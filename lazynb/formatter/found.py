"""Values in a model's text: inside fences, between sentences, cut off or slightly broken.

Where it is looked for: the text as a whole, its fenced blocks (those marked with the language first),
then everything. There, a part that parses wins over one that has to be repaired; of several that
parse, the first, but a footnote such as `[1]` only when there is nothing else. Repair is for what
starts like JSON, never for prose in braces.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazynb.errors import LazynbError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_THOUGHT = re.compile(r"\A.*</think>", re.DOTALL)
_FENCE = re.compile(r"```+[ \t]*([\w+-]*)[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_STRING = r'"(?:\\.|[^"\\])*"'
_SINGLE = r"'(?:\\.|[^'\\])*'"
_SMART = r"[“”„][^“”]*[“”]"
_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
# A bare key counts only before what looks like a value: `{x:.2f}` and `{see: below}` are prose.
_OBJECT = rf"""\{{\s*(?:\}}|(?:{_STRING}|{_SINGLE}|{_SMART})\s*:|[\w$-]+\s*:\s*(?:["'“\[{{]
    |(?:{_NUMBER}|true|false|null|True|False|None)\b))"""
_ARRAY = rf"""\[[\s\[]{{0,99}}+(?:[\s\[]|\]|{_OBJECT}
    |(?:{_STRING}|{_SINGLE}|{_SMART}|{_NUMBER}|true|false|null|True|False|None|NaN)\s*(?:[,\]]|\Z))"""
_JSON_START = re.compile(rf"(?={_OBJECT}|{_ARRAY})", re.VERBOSE)
# A bracket right behind a name is a call or an index.
_LITERAL_START = re.compile(
    r"""(?=(?:\{|(?<![A-Za-z0-9_)\]])[\[(])\s*(?:["'\[{(\]}\d.-]|[bru]+["']|True|False|None))"""
)
_BRACKET = re.compile(r"[\[{(\]})]")
_ATTEMPTS = 50  # a text of nothing but brackets must not take forever
_MISSING = object()
_BAD = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


@dataclass(frozen=True)
class _Syntax:
    """How values of one kind are written."""

    name: str
    languages: tuple[str, ...]
    start: re.Pattern[str]
    token: re.Pattern[str]
    parse: Callable[[str], Any]
    repair: Callable[[str], Any]


def find_json(text: str) -> Any:
    """Return the JSON in a text.

    Raises
    ------
    LazynbError
        There is none: the message shows the text.
    """
    return _find(_JSON, text)


def find_literal(text: str) -> Any:
    """Return the Python literal in a text: a dict, list, tuple, set, … No code is run.

    Raises
    ------
    LazynbError
        There is none: the message shows the text.
    """
    return _find(_LITERAL, text)


def fences(text: str, languages: tuple[str, ...]) -> list[str]:
    """Return the fenced blocks of a text: those in the languages, then those without one."""
    blocks = [(match[1].lower(), match[2]) for match in _FENCE.finditer(text)]
    marked = [body for language, body in blocks if language in languages]
    return marked + [body for language, body in blocks if not language]


def spoken(text: str) -> str:
    """Return a text without what the model thought aloud before it."""
    return _THOUGHT.sub("", text)


def nothing(what: str, text: str) -> LazynbError:
    """Return the error that a text holds no such value."""
    shown = text if len(text) <= 300 else f"{text[:200]} … {text[-80:]}"  # noqa: PLR2004
    return LazynbError(
        f"There is no {what} in the model's text: {shown!r}",
        hint="Ask for it in the prompt; if the text is cut off, make max_tokens larger.",
    )


def _find(syntax: _Syntax, text: str) -> Any:
    text = text.lstrip("\ufeff")
    value = _try(syntax.parse, text)
    if value is not _MISSING:
        return value
    answer = spoken(text)
    for region in [*fences(answer, syntax.languages), answer]:
        for find in (syntax.parse, lambda region: _first(syntax, region)):
            value = _try(find, region)
            if value is not _MISSING:
                return value
    raise nothing(syntax.name, text)


def _first(syntax: _Syntax, region: str) -> Any:
    """Return the best value among the parts of a region."""
    parts = list(_parts(syntax, region))
    whole = [value for value, repaired in parts if not repaired]
    broken = [value for value, repaired in parts if repaired]
    best = [*(value for value in whole if not _is_footnote(value)), *broken, *whole]
    return best[0] if best else _MISSING


def _parts(syntax: _Syntax, region: str) -> Iterator[tuple[Any, bool]]:
    """Yield the outermost values of a region, each with whether it had to be repaired."""
    position = 0
    for _attempt in range(_ATTEMPTS):
        match = syntax.start.search(region, position)
        if match is None:
            return
        end = _end(syntax.token, region, match.start())
        part = region[match.start() : end]
        position = match.start() + 1
        for read in (syntax.parse, syntax.repair):
            value = _try(read, part)
            if isinstance(value, dict | list | tuple | set):
                yield value, read is syntax.repair
                position = end
                break


def _end(token: re.Pattern[str], text: str, start: int) -> int:
    """Return where the bracket at `start` is closed: brackets in strings first left out, then not."""
    for pattern in (token, _BRACKET):
        depth = 0
        for match in pattern.finditer(text, start):
            depth += 1 if match[0] in "[{(" else -1 if match[0] in "]})" else 0
            if depth == 0:
                return match.end()
    return len(text)


def _is_footnote(value: Any) -> bool:
    return not value or (isinstance(value, list) and len(value) == 1 and isinstance(value[0], int))


def _try(function: Callable[[str], Any], text: str) -> Any:
    try:
        return function(text)
    except _BAD:
        return _MISSING


def _repaired(part: str) -> Any:
    import json_repair

    value = json_repair.loads(part, skip_json_loads=True)
    return value if value and isinstance(value, dict if part[0] == "{" else list) else _MISSING


def _unrepaired(_part: str) -> Any:
    return _MISSING


def _literal(text: str) -> Any:
    return ast.literal_eval(text.strip())


_JSON = _Syntax(
    "JSON",
    ("json", "json5", "jsonc"),
    _JSON_START,
    re.compile(rf"{_STRING}|[\[{{\]}}]", re.DOTALL),
    json.loads,
    _repaired,
)
_LITERAL = _Syntax(
    "Python literal",
    ("python", "py"),
    _LITERAL_START,
    re.compile(rf"{_STRING}|{_SINGLE}|[\[{{(\]}})]", re.DOTALL),
    _literal,
    _unrepaired,
)
