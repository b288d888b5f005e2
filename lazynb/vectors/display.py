"""How embeddings and rankings look in a cell: as text, and as HTML without scripts, in which every text is escaped."""

from __future__ import annotations

import math
from html import escape
from operator import mul
from typing import TYPE_CHECKING, Any

from lazynb.card import shorten
from lazynb.vectors import picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.vectors import Embedding, Embeddings, Ranking, Weights

STYLE = "font-family:var(--jp-ui-font-family,sans-serif);font-size:var(--jp-ui-font-size1,13px)"
MUTED = "color:var(--jp-ui-font-color2,#757575)"
MOST = 200
"""Texts that are compared with each other: each pair costs as much time as all others."""
NUMBERED = 12  # up to as many texts, the similarities are written
LABELLED = 40  # up to as many, there is room for labels
WORDS = 32  # characters of a label
ROWS = 50  # of a table
SENTENCE = 200  # characters of a document


# One embedding.


def embedding_text(vector: Embedding) -> str:
    """Return its size, its norm and its first numbers."""
    first = ", ".join(f"{value:.4g}" for value in vector[:5]) + (", …" if vector[5:] else "")
    return f"{_size(vector)}: [{first}]"


def embedding_html(vector: Embedding) -> str:
    """Return a heat map and a line of facts."""
    if not vector:
        return _note(_size(vector))
    low, high = min(vector), max(vector)
    # A few numbers of an embedding are often much larger than all others, which would be white beside them.
    sizes = sorted(abs(value) for value in vector if math.isfinite(value))
    scale = (sizes[int(0.98 * (len(sizes) - 1))] if sizes else 0) or 1
    shades = [value / scale if math.isfinite(value) else 0 for value in vector]
    columns = min(64 * math.ceil(len(vector) / 2048), 192)
    rows = [shades[start : start + columns] for start in range(0, len(shades), columns)]
    heat = picture.image(picture.png(rows, max(2, 512 // columns)), "png", embedding_text(vector))
    return f"<div>{heat}{_note(f'{_size(vector)}, from {low:.3g} to {high:.3g}')}</div>"


def _size(vector: Sequence[float]) -> str:
    return f"embedding of {len(vector)} numbers, norm {math.hypot(*vector):.2f}"


# Several embeddings.


def embeddings_text(vectors: Embeddings) -> str:
    """Return how similar they are, or how many they are where that is too much for a text."""
    if not 1 < len(vectors) <= NUMBERED:
        return _count(vectors)
    labels = [shorten(picture.clean(_label(vectors, i)), WORDS) for i in range(len(vectors))]
    width = max(map(picture.columns, labels))
    lines = [
        f"{label}{' ' * (width - picture.columns(label))}  {'  '.join(f'{value:5.2f}' for value in row)}".rstrip()
        for label, row in zip(labels, similarities(vectors), strict=True)
    ]
    return "\n".join([f"{_count(vectors)}, cosine similarity:", *lines])


def embeddings_html(vectors: Embeddings) -> str:
    """Return the matrix of their similarities."""
    shown = vectors[:MOST]
    if len(shown) < 2:  # noqa: PLR2004  nothing to compare
        return _note(_count(vectors))
    rows = similarities(shown)
    low = min(map(min, rows))
    span = max(1 - low, 0.01)
    shades = [[(value - low) / span for value in row] for row in rows]
    labels = [f"{_short(vectors, i)} {i + 1}" for i in range(len(shown))]
    values = [[f"{value:.2f}" for value in row] for row in rows]
    size = (
        36
        if len(shown) <= NUMBERED
        else 14
        if len(shown) <= LABELLED
        else max(3, 480 // len(shown))
    )
    svg = picture.matrix(
        shades,
        labels if len(shown) <= LABELLED else [],
        values if len(shown) <= NUMBERED else [],
        size,
    )
    facts = [_count(vectors), f"cosine similarity from {low:.2f} (white) to 1 (blue)"]
    if len(vectors) > len(shown):
        facts.append(f"the first {len(shown)} of them")
    alt = embeddings_text(vectors)
    return f"<div>{picture.image(svg, 'svg+xml', ' '.join(alt.split()))}{_note(', '.join(facts))}</div>"


def similarities(vectors: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the cosine of each pair; 0 where a vector has no direction."""
    units = []
    for vector in vectors:
        norm = math.hypot(*vector)
        norm = norm if 0 < norm < math.inf else math.inf
        units.append([value / norm if math.isfinite(value) else 0.0 for value in vector])
    rows = [[0.0] * len(units) for _ in units]
    for i, one in enumerate(units):
        for j in range(i + 1):
            rows[i][j] = rows[j][i] = sum(map(mul, one, units[j]))
    return rows


def _count(vectors: Embeddings) -> str:
    if not vectors:
        return "no embeddings"
    return f"{len(vectors)} embedding{'s' if vectors[1:] else ''} of {len(vectors[0])} numbers"


def _label(vectors: Embeddings, index: int) -> str:
    return str(vectors.texts[index]) if index < len(vectors.texts) else ""


def _short(vectors: Embeddings, index: int) -> str:
    return shorten(_label(vectors, index), WORDS)


# A ranking, and a sparse embedding.


def ranking_text(ranking: Ranking) -> str:
    """Return the documents with their scores, best first."""
    if not ranking:
        return "no documents"
    rows = [
        f"{score:7.3f}  {index:>3}  {shorten(picture.clean(_document(ranking, index)), 80)}".rstrip()
        for index, score in ranking[:ROWS]
    ]
    head = f"{len(ranking)} document{'s' if ranking[1:] else ''} ranked"
    query = f" for: {shorten(picture.clean(ranking.query), 80)}" if ranking.query else ""
    return "\n".join([head + query, *rows, *_rest(len(ranking))])


def ranking_html(ranking: Ranking) -> str:
    """Return a table of the documents with their scores as bars."""
    rows = [
        (f"{score:.3f}", score, str(index), shorten(_document(ranking, index), SENTENCE))
        for index, score in ranking[:ROWS]
    ]
    query = f"ranked for: {shorten(ranking.query, SENTENCE)}" if ranking.query else ""
    return _table(("score", "", "index", "document"), rows, query, len(ranking))


def weights_text(weights: Weights) -> str:
    """Return the heaviest tokens."""
    heaviest = sorted(weights.items(), key=lambda item: -item[1])
    words = [f"{picture.clean(_token(weights, number))} {w:.3g}" for number, w in heaviest[:10]]
    return f"weights of {len(weights)} tokens: {', '.join(words)}" + (
        ", …" if heaviest[10:] else ""
    )


def weights_html(weights: Weights) -> str:
    """Return a table of the heaviest tokens with their weights as bars."""
    heaviest = sorted(weights.items(), key=lambda item: -item[1])[:ROWS]
    rows = [(f"{w:.3g}", w, str(number), _token(weights, number)) for number, w in heaviest]
    return _table(("weight", "", "id", "token"), rows, "", len(weights))


def _token(weights: Weights, number: int) -> str:
    return weights.tokens.get(number, str(number))


def _document(ranking: Ranking, index: int) -> str:
    if not 0 <= index < len(ranking.documents):
        return ""
    document: Any = ranking.documents[index]
    return str(document.get("text", document) if isinstance(document, dict) else document)


def _table(
    header: Sequence[str], rows: Sequence[tuple[str, float, str, str]], title: str, count: int
) -> str:
    """Return a table of (number, its value for the bar, number, text)."""
    values = [value for _, value, *_ in rows if math.isfinite(value)]
    low, high = min(values, default=0), max(values, default=0)
    low, high = min(low, 0), 1 if low >= 0 and high <= 1 else high
    head = "".join(map(_head, header))
    body = "".join(
        f'<tr>{_number(number)}<td style="min-width:120px">{_bar(value, low, high)}</td>'
        f'{_number(index)}<td style="text-align:left">{escape(picture.clean(text))}</td></tr>'
        for number, value, index, text in rows
    )
    table = f'<table style="{STYLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    notes = [_note(note) for note in [title, *_rest(count)] if note]
    return f"<div>{''.join([*notes[:1], table, *notes[1:]] if title else [table, *notes])}</div>"


def _bar(value: float, low: float, high: float) -> str:
    return picture.bar((value - low) / ((high - low) or 1) if math.isfinite(value) else 0)


def _head(name: str) -> str:
    side = "left" if name in ("document", "token") else "right"
    return f'<th style="text-align:{side}">{escape(name)}</th>'


def _number(text: str) -> str:
    return f'<td style="text-align:right">{escape(text)}</td>'


def _rest(count: int) -> list[str]:
    return [f"… and {count - ROWS} more"] if count > ROWS else []


def _note(text: str) -> str:
    return f'<div style="{STYLE};{MUTED}">{escape(picture.clean(text))}</div>'
