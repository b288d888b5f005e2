"""The picture of a flow: its steps, and what the last run did.

Drawn by hand as SVG. A step is a small card: name and time, what went in and out, and a thin bar
for its share of the whole time. Cards stand below each other where they run one after the other,
and beside each other where they run at the same time; a graph is layered by how far its steps are
from the input. Colours are those of the page.
"""

from __future__ import annotations

import unicodedata
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from lazynb.flow.graph import END, START
from lazynb.flow.outline import Node, outline, text

if TYPE_CHECKING:
    from lazynb.flow.base import Flow

CARD, HEIGHT = 232, 46  # a card, in px
CAPTION, HEAD = 16, 20  # the line above a card, and above a group
GAP, LINK, RANK = 16, 18, 34  # between cards: beside, below, and between the ranks of a graph
MOST = 8  # cards beside each other; the rest is a number
_NAME, _VALUE = 30, 34  # characters that fit

_STYLE = """
.lazynb-flow{--ink:var(--jp-ui-font-color1,var(--vscode-foreground,#333));
--soft:var(--jp-ui-font-color2,var(--vscode-descriptionForeground,#757575));
--card:var(--jp-layout-color2,var(--vscode-editorWidget-background,#f3f3f3));
--line:var(--jp-border-color1,#b0b0b0);--bar:var(--jp-brand-color1,#1976d2);
--bad:var(--jp-error-color1,#d32f2f);
font:12px var(--jp-ui-font-family,system-ui,sans-serif)}
.lazynb-flow text{fill:var(--soft);font-size:11px}
.lazynb-flow .name{fill:var(--ink);font-size:12px;font-weight:600}
.lazynb-flow .value{font-family:var(--jp-code-font-family,monospace);font-size:10.5px}
.lazynb-flow .bad{fill:var(--bad)}
.lazynb-flow .card{fill:var(--card)}
.lazynb-flow .bar{fill:var(--bar)}
.lazynb-flow .link{stroke:var(--line);fill:none}
.lazynb-flow .idle{opacity:.55}
"""


class Block(NamedTuple):
    """A drawn part; lines reach it at the middle of its top and leave at the middle of its bottom."""

    width: float
    height: float
    svg: str


def mimebundle(flow: Flow) -> dict[str, str]:
    """Return the representations of a flow for the notebook."""
    root = outline(flow)
    svg = draw(root)
    return {
        "text/plain": text(root),
        "text/html": f'<div style="overflow-x:auto">{svg}</div>{_as_text(root)}',
        "image/svg+xml": svg,
    }


def draw(root: Node) -> str:
    """Return the picture as one SVG element."""
    block = _block(root, root.trace.seconds, root=True)
    alt = escape(_clean(text(root)), quote=True)
    width, height = block.width + 2, block.height + 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lazynb-flow" role="img" aria-label="{alt}" '
        f'width="{width:g}" height="{height:g}" viewBox="-1 -1 {width:g} {height:g}">'
        f"<style>{_STYLE}</style>{block.svg}</svg>"
    )


def _as_text(root: Node) -> str:
    """Return the tree behind a disclosure triangle: whole values, and what a sanitizer leaves."""
    font = "font:11px var(--jp-ui-font-family,system-ui,sans-serif)"
    style = f"color:var(--jp-ui-font-color2,#757575);{font}"
    summary = f'<summary style="{style}">as text</summary>'
    return f"<details>{summary}<pre>{escape(_clean(text(root)))}</pre></details>"


def _block(node: Node, total: float, *, root: bool = False) -> Block:
    if node.shape == "leaf":
        return _captioned(node, _card(node, total))
    children = [_block(child, total) for child in node.children[: _most(node)]]
    if hidden := len(node.children) - len(children):
        children.append(Block(CARD / 2, HEIGHT, _label(0, 28, f"and {hidden} more")))
    if node.shape == "graph":
        body = _graph(node, children)
    else:
        body = _column(children) if node.shape == "column" else _row(children)
    return _captioned(node, _group(node, body, stem=not root and node.shape != "graph"))


def _most(node: Node) -> int:
    return MOST if node.shape == "row" else len(node.children)


def _card(node: Node, total: float) -> Block:
    share = min(1.0, node.trace.seconds / total) if total else 0.0
    failed = node.state == "failed"
    values = node.trace.error if failed else node.values
    parts = [
        f"<title>{escape(_clean(f'{node.name}: {node.values}'))}</title>",
        f'<rect class="card" width="{CARD}" height="{HEIGHT}" rx="3"/>',
        _label(8, 17, _fit(node.name, _NAME - len(node.time)), "name"),
        _label(CARD - 8, 17, node.time, anchor="end"),
        _label(
            8,
            33,
            _fit_pair(node) if not failed else _fit(values, _VALUE),
            "value bad" if failed else "value",
        ),
    ]
    if share > 0.01:  # noqa: PLR2004
        bar = max(2.0, CARD * share)
        parts.append(f'<rect class="bar" y="{HEIGHT - 2}" width="{bar:.1f}" height="2"/>')
    state = "" if node.state else ' class="idle"'
    return Block(CARD, HEIGHT, f"<g{state}>{''.join(parts)}</g>")


def _group(node: Node, body: Block, *, stem: bool) -> Block:
    """Put a line with name, kind and time above a flow's steps; the stem leads past it."""
    kind = node.kind if node.kind != node.name else ""
    name = _fit(node.name, _NAME)
    muted = " · ".join(part for part in (kind, node.time) if part)
    shift = 7.2 * _width(name) + 8
    state = "" if node.state else ' class="idle"'
    error = " bad" if node.state == "failed" else ""
    end = shift + 6 * _width(muted)
    width = max(body.width, end)
    head = f"<g{state}>{_label(0, 11, name, 'name')}{_label(shift, 11, muted, error)}</g>"
    if stem and end < width / 2:
        head += _line(width / 2, 0, width / 2, HEAD)
    return Block(width, body.height + HEAD, head + _at((width - body.width) / 2, HEAD, body))


def _captioned(node: Node, block: Block) -> Block:
    if not node.caption:
        return block
    svg = _label(0, 11, _fit(node.caption, _VALUE)) + _at(0, CAPTION, block)
    return Block(block.width, block.height + CAPTION, svg)


def _column(blocks: list[Block]) -> Block:
    width = max((block.width for block in blocks), default=CARD)
    y, parts = 0.0, []
    for block in blocks:
        if y:
            parts.append(_arrow(width / 2, y, y + LINK))
            y += LINK
        parts.append(_at((width - block.width) / 2, y, block))
        y += block.height
    return Block(width, y, "".join(parts))


def _row(blocks: list[Block]) -> Block:
    """Stand branches side by side between two rails."""
    height = max((block.height for block in blocks), default=HEIGHT)
    x, parts, middles = 0.0, [], []
    for block in blocks:
        middle = x + block.width / 2
        middles.append(middle)
        parts.append(_line(middle, 0, middle, 8) + _at(x, 8, block))
        parts.append(_line(middle, 8 + block.height, middle, 16 + height))
        x += block.width + GAP
    rails = "".join(_line(middles[0], y, middles[-1], y) for y in (0, 16 + height) if middles)
    return Block(x - GAP if blocks else CARD, height + 16, rails + "".join(parts))


def _graph(node: Node, blocks: list[Block]) -> Block:
    """Layer a graph by the ranks of its steps and draw its edges behind them."""
    by_name = {child.name: block for child, block in zip(node.children, blocks, strict=True)}
    ranks = [[by_name[name] for name in rank] for rank in node.ranks]
    rank_widths = [sum(b.width for b in rank) + GAP * (len(rank) - 1) for rank in ranks]
    width = max(rank_widths, default=CARD)
    tops = {END: (width / 2, 0.0)}
    bottoms = {START: (width / 2, 14.0)}
    y, cards = 14.0 + RANK, []
    for rank, rank_width, names in zip(ranks, rank_widths, node.ranks, strict=True):
        x = (width - rank_width) / 2
        for name, block in zip(names, rank, strict=True):
            cards.append(_at(x, y, block))
            tops[name] = (x + block.width / 2, y)
            bottoms[name] = (x + block.width / 2, y + block.height)
            x += block.width + GAP
        y += max(block.height for block in rank) + RANK
    tops[END] = (width / 2, y)
    ends = _label(width / 2, 11, "input", anchor="middle")
    ends += _label(width / 2, y + 12, "output", anchor="middle")
    edges = "".join(_edge(*bottoms[a], *tops[b]) for a, b in node.edges)
    return Block(width, y + 16, edges + ends + "".join(cards))


def _edge(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = (y2 - y1) / 2
    path = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2 - 1:g}"
    return f'<path class="link" d="{path}"/>{_tip(x2, y2)}'


def _arrow(x: float, y1: float, y2: float) -> str:
    return _line(x, y1, x, y2 - 1) + _tip(x, y2)


def _tip(x: float, y: float) -> str:
    return f'<path class="link" d="M{x - 3:g} {y - 4:g}L{x:g} {y - 1:g}L{x + 3:g} {y - 4:g}"/>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="link" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>'


def _at(x: float, y: float, block: Block) -> str:
    return f'<g transform="translate({x:g} {y:g})">{block.svg}</g>'


def _label(x: float, y: float, content: str, style: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">'
        f"{escape(_clean(content))}</text>"
    )


def _fit_pair(node: Node) -> str:
    """Fit `input → output`, giving the room that a short one leaves to the other."""
    if node.state != "done":
        return _fit(node.trace.input, _VALUE)
    room, into, out = _VALUE - 3, node.trace.input, node.trace.output
    into = _fit(into, max(room // 2, room - _width(out)))
    return f"{into} → {_fit(out, room - _width(into))}"


def _fit(content: str, limit: int) -> str:
    """Shorten a text to a width in characters; wide ones count twice."""
    if _width(content) <= limit:
        return content
    while content and _width(content) > limit - 1:
        content = content[:-1]
    return content + "…"


def _width(content: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in content)


def _clean(content: str) -> str:
    """Replace what XML cannot hold; line ends stay."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}"
        for char in content
    )
