"""Answers of the base model and of the tuned one, side by side."""

from __future__ import annotations

from html import escape
from typing import Any

CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere;width:33%"


class Comparison(list[tuple[Any, Any, Any]]):
    """A list of `(input, base answer, tuned answer)`; in a notebook it shows as a table."""

    HEAD = ("input", "base", "tuned")

    def __repr__(self) -> str:
        return "\n\n".join(
            "\n".join(f"{name:>5}  {value}" for name, value in zip(self.HEAD, row, strict=True))
            for row in self
        )

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="{CELL}">{name}</th>' for name in self.HEAD)
        rows = "".join(
            "<tr>"
            + "".join(f'<td style="{CELL}">{escape(str(value))}</td>' for value in row)
            + "</tr>"
            for row in self
        )
        return f'<table style="width:100%"><tr>{head}</tr>{rows}</table>'
