"""How a module looks in a notebook: what it is, where it runs, and whether it is up."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

COLORS = {
    "ready": "var(--jp-success-color1, #388e3c)",
    "remote": "var(--jp-success-color1, #388e3c)",
    "training": "var(--jp-success-color1, #388e3c)",
    "finished": "var(--jp-success-color1, #388e3c)",
    "failed": "var(--jp-error-color1, #d32f2f)",
    "stopped": "var(--jp-ui-font-color3, #9e9e9e)",
    "not started": "var(--jp-ui-font-color3, #9e9e9e)",
}
STARTING = "var(--jp-warn-color1, #f57c00)"


def card(title: str, status: str, rows: Mapping[str, Any]) -> str:
    """Return a small HTML card; everything in it is escaped.

    Parameters
    ----------
    title : str
        The model.
    status : str
        A word; the dot before it repeats it as a colour.
    rows : dict
        What else there is to say; empty values are left out.
    """
    dot = f'<span style="color:{COLORS.get(status, STARTING)}">●</span>'
    lines = "".join(
        '<tr style="background:none"><td style="text-align:left;padding:0 12px 0 0;'
        f'color:var(--jp-ui-font-color2,#616161)">{escape(name)}</td>'
        f'<td style="text-align:left;padding:0">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
        if value not in ("", None, False)
    )
    return (
        '<div style="font-family:var(--jp-ui-font-family,sans-serif);'
        'font-size:var(--jp-ui-font-size1,13px);color:var(--jp-ui-font-color1,inherit)">'
        f"<div><b>{escape(title)}</b>&ensp;{dot} {escape(status)}</div>"
        f'<table style="margin:2px 0 0 0;border:none">{lines}</table></div>'
    )


def shorten(value: Any, limit: int = 80) -> str:
    """Return a value's first words on one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
