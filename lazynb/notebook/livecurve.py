"""The live view of a run's curve in a page: a widget whose state is the whole curve, of a few hundred points."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from lazynb.notebook.drawing import color_of
from lazynb.notebook.live import serve_pages, views

if TYPE_CHECKING:
    from lazynb.training.metrics import Curve, Point


class CurveWidget(anywidget.AnyWidget):
    """The widget; a page that is opened in mid-run reads its state."""

    _esm = Path(__file__).with_name("curve.js")
    run = traitlets.Unicode().tag(sync=True)
    """A name of the view."""
    name = traitlets.Unicode().tag(sync=True)
    """What a saved picture is called."""
    line = traitlets.Unicode().tag(sync=True)
    curve = traitlets.Dict().tag(sync=True)
    settled = traitlets.Dict().tag(sync=True)
    """The plain output, once the run is over."""


class LiveCurve:
    """Shows a curve in the pages that report themselves.

    Parameters
    ----------
    name : str
        The run's name.
    """

    def __init__(self, name: str) -> None:
        self.reported = threading.Event()
        self._color = color_of(name, set())
        self.widget = CurveWidget(run=secrets.token_hex(8), name=name, curve={})
        serve_pages()
        views.add(self.widget.run, self)

    def bundle(self, line: str) -> dict[str, Any]:
        """Return what is displayed: the widget, and words for front ends that have none."""
        data = self.widget._repr_mimebundle_()
        view = (data[0] if isinstance(data, tuple) else data) or {}
        return {**view, "text/plain": line}

    def show(self, line: str, curve: Curve) -> None:
        """Send how the run stands."""
        self.widget.line = line
        self.widget.curve = {
            "loss": _rounded(curve.loss.shown),
            "smooth": _rounded(curve.loss.smoothed),
            "evaluated": _rounded(curve.evaluated.shown),
            "rate": _rounded(curve.rate.shown),
            "color": self._color,
        }

    def settle(self, bundle: dict[str, str]) -> None:
        """Tell pages that were opened in mid-run what the output is in the end."""
        self.widget.settled = bundle

    def hear(self, data: dict[str, Any]) -> None:
        """Take a page's report."""
        del data
        self.reported.set()

    def close(self) -> None:
        """Forget the widget."""
        self.widget.close()


def _rounded(points: list[Point]) -> list[tuple[float, float]]:
    return [(round(step, 1), float(f"{value:.4g}")) for step, value in points]
