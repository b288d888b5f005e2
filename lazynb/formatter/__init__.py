"""Formatters: what becomes of a model's text before it is returned.

A formatter is called with the whole text, at the end, also when the text was streamed before. Any
function is one; those here find a value in the text, and `|` puts one after the other:

    m.formatter(JsonFormatter("[:][name]") | sorted)
"""

from lazynb.formatter.base import Chain, Formatter
from lazynb.formatter.files import FileFormatter
from lazynb.formatter.values import JsonFormatter, PythonFormatter, StrFormatter, YamlFormatter

__all__ = [
    "Chain",
    "FileFormatter",
    "Formatter",
    "JsonFormatter",
    "PythonFormatter",
    "StrFormatter",
    "YamlFormatter",
]
