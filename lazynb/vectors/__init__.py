"""What embedding models and rerankers return: the plain lists of the guide, which also know how to show themselves.

Each of these is a list (or dict) in every respect: it prints, compares and slices as one, and whatever is made of it, a
slice, a copy, a pickle, is a plain one, which needs no lazynb to be read. Only where a cell's last line shows it
is there something else to see, and that is computed only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class _Shown:
    """What shows itself in a cell, by the function of `lazynb.vectors.display` that is named `_view`."""

    __slots__ = ()
    _view: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from lazynb.vectors import display

        return {
            "text/plain": getattr(display, f"{self._view}_text")(self),
            "text/html": getattr(display, f"{self._view}_html")(self),
        }

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002  IPython's
        """Be as short inside of other values that a cell shows."""
        from lazynb.vectors import display

        printer.text(getattr(display, f"{self._view}_text")(self))


class Embedding(_Shown, list[float]):
    """The embedding of a text: a list of floats; in a notebook it shows its size, its norm and a small heat map."""

    __slots__ = ()
    _view = "embedding"

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class Embeddings(_Shown, list[list[float]]):
    """The embeddings of several texts: a list of lists; in a notebook it shows how similar they are to each other."""

    _view = "embeddings"

    def __init__(self, vectors: Iterable[list[float]] = (), texts: Sequence[Any] = ()) -> None:
        super().__init__(vectors)
        self.texts = texts

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class Ranking(_Shown, list[tuple[int, float]]):
    """A reranker's `(index, score)`, best first; in a notebook it shows a table of the documents with bars."""

    _view = "ranking"

    def __init__(
        self,
        ranks: Iterable[tuple[int, float]] = (),
        query: str = "",
        documents: Sequence[Any] = (),
    ) -> None:
        super().__init__(ranks)
        self.query = query
        self.documents = documents

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class Weights(_Shown, dict[int, float]):
    """A sparse embedding: token id → weight; in a notebook it shows its heaviest tokens with bars."""

    _view = "weights"

    def __init__(
        self, weights: Iterable[tuple[int, float]] = (), tokens: Sequence[str] = ()
    ) -> None:
        super().__init__(weights)
        self.tokens = dict(zip(self, tokens, strict=False))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)
