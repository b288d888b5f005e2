"""Formatters that find a value in the text: JSON, YAML, a Python literal; and back to text."""

from __future__ import annotations

import json
from typing import Any

from lazynb.formatter.base import Formatter
from lazynb.formatter.found import fences, find_json, find_literal, nothing, spoken
from lazynb.formatter.path import follow, parse


class _ValueFormatter(Formatter):
    """Finds a value in the text, then follows a path into it.

    Parameters
    ----------
    path : str, optional
        What of the value is wanted, in any depth: `[i]`, `[a:b:c]`, `[:]`, `[key]`, `[k1, k2]` (a list of
        values), `{k1, k2}` (a dict with those keys). See `lazynb.formatter.path`.

    Raises
    ------
    OptionError
        The path cannot be read.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path or ""
        self._steps = parse(self.path)

    def format(self, value: Any) -> Any:
        """Return what the path leads to in the text's value, or in the value of a step before."""
        return follow(self._load(value) if isinstance(value, str) else value, self._steps)

    def _load(self, text: str) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})" if self.path else super().__repr__()


class JsonFormatter(_ValueFormatter):
    """The JSON in the text, wherever it stands; slightly broken JSON is repaired.

    Parameters
    ----------
    path : str, optional
        What of it is wanted: `JsonFormatter('[:][name]')` is the `name` of every item. Steps: `[i]`,
        `[a:b:c]`, `[:]`, `[key]`, `[k1, k2]`, `{k1, k2}`.

    Raises
    ------
    LazynbError
        When called: there is no JSON in the text, or a step of the path does not fit it.

    Examples
    --------
    >>> JsonFormatter('[:][name]')('Sure! [{"name": "Ada", "born": 1815}, {"name": "Alan"}]')
    ['Ada', 'Alan']
    """

    def _load(self, text: str) -> Any:
        return find_json(text)


class PythonFormatter(_ValueFormatter):
    """The Python literal in the text: dicts, lists, tuples, sets, strings, numbers.

    It is read, never run: code other than a literal is an error. With a path, as `JsonFormatter`.

    Examples
    --------
    >>> PythonFormatter('[1]')("That is ('a', {'b', 'c'}, None).") == {'b', 'c'}
    True
    """

    def _load(self, text: str) -> Any:
        return find_literal(text)


class YamlFormatter(_ValueFormatter):
    r"""The YAML in the text: of its first fenced block that is YAML, or of the text itself.

    Only plain data is read, no Python objects. With a path, as `JsonFormatter`.

    Raises
    ------
    LazynbError
        When called: the text is no YAML, or only a sentence.

    Examples
    --------
    >>> YamlFormatter('[colors][0]')('colors:\n- red\n- green')
    'red'
    """

    def _load(self, text: str) -> Any:
        import yaml

        answer = spoken(text)
        for block in [*fences(answer, ("yaml", "yml")), answer]:
            try:
                value = yaml.safe_load(block)
            except (yaml.YAMLError, ValueError, RecursionError):
                continue
            if value is not None and not isinstance(value, str):  # a sentence is a YAML string, too
                return value
        raise nothing("YAML", text)


class StrFormatter(Formatter):
    """Text: a text as it is; a dict, list or other value as JSON where it can be, else as `str(value)`.

    Examples
    --------
    >>> (JsonFormatter('{a}') | StrFormatter())('{"a": 1, "b": 2}')
    '{"a": 1}'
    """

    def format(self, value: Any) -> str:
        """Return the value as text."""
        if isinstance(value, str):
            return value
        try:
            return json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            return str(value)
