"""What shows a cell's output: a page with widgets, a notebook client without them, or a terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from lazynb.config import config

if TYPE_CHECKING:
    import threading

Frontend = Literal["page", "notebook", "terminal"]
POLL = 0.05  # seconds between two looks at the messages of a page


def frontend() -> Frontend:
    """Return what shows the output of the running cell.

    'page': a Jupyter server started the kernel for a page that may have widgets (whether it has, it must report);
    'notebook': rich output without a way back (papermill, nbconvert, VS Code); 'terminal': text alone.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return "terminal"
    if config.plain or "JPY_SESSION_NAME" not in os.environ:
        return "notebook"
    return "page"


def wait(event: threading.Event, *, serve: bool) -> None:
    """Block the cell until an event; an interrupt passes through.

    Parameters
    ----------
    event : threading.Event
        What is waited for.
    serve : bool
        Serve what pages send meanwhile.
    """
    if not serve:
        while not event.wait(3600):
            pass
        return
    from IPython import get_ipython

    from lazynb.notebook.serving import serving

    with serving(get_ipython().kernel) as serve_pages:
        while not event.wait(POLL):
            serve_pages()


class Display:
    """One output of a cell, which can be replaced later, from any thread."""

    def __init__(self, data: dict[str, Any]) -> None:
        from IPython.display import display

        self._handle = display(data, raw=True, display_id=True)

    def update(self, data: dict[str, Any]) -> None:
        """Replace the output."""
        self._handle.update(data, raw=True)
