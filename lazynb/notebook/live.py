"""The live view of an answer in a page: what is new, at most every 50 ms, to a small widget.

The widget's own comm carries the text to all pages at once. A page's way back is a comm that it opens itself
(`lazynb.view`), because only such a comm is served while the cell blocks: it reports the view, asks for missing text,
and stops the answer. See stream.js.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anywidget
import traitlets

from lazynb.notebook.settle import settled, summary

if TYPE_CHECKING:
    from lazynb.streaming import Answer

TARGET = "lazynb.view"
KEPT = 20  # views that a page can still ask for


class View(Protocol):
    """What a page talks to: an answer's view, or a curve's."""

    def hear(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Take what a page says; return what it asked for."""

    def close(self) -> None:
        """Forget the widget."""


class Views(OrderedDict[str, View]):
    """The latest views by their ids; older ones are closed."""

    def add(self, name: str, view: View) -> None:
        """Add one."""
        self[name] = view
        while len(self) > KEPT:
            self.popitem(last=False)[1].close()


views = Views()


class AnswerWidget(anywidget.AnyWidget):
    """The widget; its state is two names, the text travels as messages."""

    _esm = Path(__file__).with_name("stream.js")
    answer = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)


class LiveView:
    """Sends what an answer gains to the pages that show it.

    Parameters
    ----------
    answer : Answer
        What is shown.
    name : str
        What the line below it says first.
    """

    def __init__(self, answer: Answer, name: str) -> None:
        self.answer = answer
        self.reported = threading.Event()
        self._sent = {"text": 0, "reasoning": 0}
        self._status = ""
        self._said = ""
        self._lock = threading.Lock()
        self.widget = AnswerWidget(answer=answer.id, name=name)
        serve_pages()
        views.add(answer.id, self)

    @property
    def bundle(self) -> dict[str, Any]:
        """What is displayed: the widget, and words for front ends that have none."""
        data = self.widget._repr_mimebundle_()
        view = (data[0] if isinstance(data, tuple) else data) or {}
        return {**view, "text/plain": f"{self.widget.name}: answering …"}

    def say(self, status: str) -> None:
        """Set what is done before the first token, in words; sent with the next flush."""
        self._status = status

    def flush(self) -> None:
        """Send what is new, once there is a page that listens."""
        if not self.reported.is_set():
            return
        with self._lock:
            message = _news(self.answer, self._sent["text"], self._sent["reasoning"])
            self._sent["text"] += len(message.get("t", ""))
            self._sent["reasoning"] += len(message.get("q", ""))
            if self._status != self._said:
                message["s"] = self._said = self._status
            if message:
                self.widget.send(message)

    def close(self) -> None:
        """Forget the widget."""
        self.widget.close()

    def hear(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Take what a page says; return what it asked for."""
        first = not self.reported.is_set()
        self.reported.set()
        if data.get("stop"):
            self.answer.cancel()
            return None
        if data.get("settle"):
            return {"settled": settled(self.answer)}
        if first:
            self.flush()
            return None
        return _news(self.answer, int(data.get("text", 0)), int(data.get("thought", 0))) or {
            "s": self._status
        }


def _news(answer: Answer, text: int, reasoning: int) -> dict[str, Any]:
    """Return what an answer has gained, as stream.js reads it."""
    over = answer.done  # read first: nothing comes afterwards
    news: dict[str, Any] = {}
    if answer.size > text:
        news |= {"o": text, "t": answer.since(text)}
    if thought := answer.since(reasoning, "reasoning"):
        news |= {"p": reasoning, "q": thought}
    if news:
        news["n"] = answer.tokens
    if over:
        news["e"] = summary(answer)
    return news


def serve_pages() -> None:
    """Let pages open comms to their views; once is enough, more does no harm."""
    from IPython import get_ipython

    get_ipython().kernel.comm_manager.register_target(TARGET, _opened)


def _opened(comm: Any, message: dict[str, Any]) -> None:
    def hear(message: dict[str, Any]) -> None:
        data = message["content"]["data"]
        view = views.get(data.get("answer", ""))
        if view is None:
            comm.close()
        elif (reply := view.hear(data)) is not None:
            comm.send(reply)

    comm.on_msg(hear)
    hear(message)
