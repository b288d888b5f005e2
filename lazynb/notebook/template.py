"""`{name}` in a prompt becomes the value of the user's variable; every other brace stays as it is.

A pair of braces is a variable when its content, written without spaces at the edges, is a name that exists in the
user's namespace, with any attributes, subscripts and calls after it. So JSON, TypeScript, LaTeX, Jinja, format
specifications and comprehensions pass through byte for byte. The text is read once, from left to right; values are
not read again.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from lazynb.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NESTED = r"(?:[^{}\n]|\{[^{}\n]*\})*"
_PIECE = re.compile(
    r"\\[A-Za-z]+(?:\{" + _NESTED + r"\})+"  # a LaTeX command with its groups
    r"|\{\{.*?\}\}"  # Jinja, and braces that are doubled
    r"|[$^_]\{"  # shell and JavaScript, LaTeX
    r"|\{(?P<expression>[^\W\d][^{}\n]*)\}"
)


def substitute(text: str, namespace: Mapping[str, Any]) -> str:
    """Return a text with the user's variables in it.

    Parameters
    ----------
    text : str
        The prompt as it was written.
    namespace : dict
        The user's variables.

    Raises
    ------
    OptionError
        An expression on a variable that exists raises; the message names it.
    """

    def value(match: re.Match[str]) -> str:
        expression = match["expression"]
        if expression is None or not _is_variable(expression, namespace):
            return match[0]
        try:
            return str(eval(expression, {}, dict(namespace)))  # noqa: S307 - the user's own cell
        except Exception as error:
            raise OptionError(
                f"{{{expression}}} in the prompt failed: {type(error).__name__}: {error}",
                hint="Compute it in Python first, and name the result.",
            ) from error

    return _PIECE.sub(value, text)


def _is_variable(expression: str, namespace: Mapping[str, Any]) -> bool:
    if expression != expression.strip():
        return False
    try:
        node: ast.AST = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name) and node.id in namespace
