"""Queries with files as a formatter: opened, made, or joined."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from lazynb.errors import OptionError
from lazynb.formatter.base import Formatter
from lazynb.query import decode_query_with_filepaths, encode_query_with_filepaths

_MODES = ("decode", "encode", "merge")


class FileFormatter(Formatter):
    """Open, make or join queries with files.

    Parameters
    ----------
    formatter : 'decode', 'encode' or 'merge'
        'decode' opens an encoded query: a dict of `query` and `files`. 'encode' makes an encoded query of
        such a dict. 'merge' joins several texts and queries: the texts in a row, all files. Both of the
        first two also work on each item of a tuple, and leave everything else as it is.
    """

    def __init__(self, formatter: str = "decode") -> None:
        self.mode = formatter.strip().lower()
        if self.mode not in _MODES:
            near = get_close_matches(self.mode, _MODES, n=1) or _MODES
            raise OptionError(
                f"FileFormatter has no mode {formatter!r}", hint=f"Did you mean: {', '.join(near)}?"
            )

    def format(self, value: Any) -> Any:
        """Return the value opened, made, or joined."""
        if self.mode == "merge":
            return _merge(value if isinstance(value, tuple | list) else (value,))
        if isinstance(value, tuple):
            # A flow's package is a tuple of its own kind, which spreads to the next step.
            parts = [self.format(item) for item in value]
            return type(value)(*parts) if type(value) is not tuple else tuple(parts)
        if self.mode == "decode":
            return decode_query_with_filepaths(value) if isinstance(value, str) else value
        return _encode(value)

    def __repr__(self) -> str:
        return f"FileFormatter({self.mode!r})"


def _encode(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"query", "files"}:
        return encode_query_with_filepaths(value["query"], value["files"])
    return value


def _merge(values: Any) -> str:
    query, files = "", list[str]()
    for value in values:
        opened = decode_query_with_filepaths(value) if isinstance(value, str) else value
        if isinstance(opened, dict):
            query += opened["query"]
            files += opened["files"]
        else:
            query += opened
    return encode_query_with_filepaths(query, files)
