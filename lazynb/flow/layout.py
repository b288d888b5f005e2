"""Where the parts of a flow's picture stand.

A step is a small card: name and time, what went in and out, and a thin bar for its share of the
whole time. Cards stand below each other where they run one after the other, and beside each other
where they run at the same time; a graph is layered by how far its steps are from the input.

Shapes and labels are kept apart, since the page draws the shapes as SVG and the labels as text.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lazynb.flow.graph import END, START

if TYPE_CHECKING:
    from lazynb.flow.outline import Node

CARD, HEIGHT = 232, 46  # a card, in px
CAPTION, HEAD = 16, 20  # the line above a card, and above a group
GAP, LINK, RANK = 16, 18, 34  # between cards: beside, below, and between the ranks of a graph
MOST = 8  # cards beside each other; the rest is a number
_NAME, _VALUE = 30, 34  # characters that fit


@dataclass(frozen=True)
class Label:
    """A text at the end of its baseline that `anchor` names; `depth` begins a new line of text."""

    x: float
    y: float
    text: str
    style: str = ""
    anchor: str = "start"
    title: str = ""
    depth: int | None = None


@dataclass(frozen=True)
class Block:
    """A drawn part; lines reach it at the middle of its top and leave at that of its bottom."""

    width: float
    height: float
    shapes: str = ""
    labels: list[Label] = field(default_factory=list)

    def at(self, x: float, y: float) -> Block:
        """Return it moved."""
        shapes = f'<g transform="translate({x:g} {y:g})">{self.shapes}</g>' if self.shapes else ""
        labels = [replace(label, x=label.x + x, y=label.y + y) for label in self.labels]
        return replace(self, shapes=shapes, labels=labels)


def layout(root: Node) -> Block:
    """Return the picture of a flow."""
    return _block(root, root.trace.seconds, 0)


def _join(width: float, height: float, blocks: list[Block], shapes: str = "") -> Block:
    shapes += "".join(block.shapes for block in blocks)
    return Block(width, height, shapes, [label for block in blocks for label in block.labels])


def _block(node: Node, total: float, depth: int) -> Block:
    if node.shape == "leaf":
        return _captioned(node, _card(node, total, depth), depth)
    shown = node.children[:MOST] if node.shape == "row" else node.children
    blocks = [_block(child, total, depth + 1) for child in shown]
    if hidden := len(node.children) - len(shown):
        more = Label(0, 28, f"and {hidden} more", depth=depth + 1)
        blocks.append(Block(CARD / 2, HEIGHT, labels=[more]))
    if node.shape == "graph":
        body = _graph(node, blocks, depth + 1)
    else:
        body = _column(blocks) if node.shape == "column" else _row(blocks)
    return _captioned(node, _group(node, body, depth), depth)


def _card(node: Node, total: float, depth: int) -> Block:
    failed, idle = node.state == "failed", "" if node.state else " idle"
    values = _fit(node.trace.error, _VALUE) if failed else _fit_pair(node)
    shapes = f'<rect class="card{idle}" width="{CARD}" height="{HEIGHT}" rx="3"/>'
    share = min(1.0, node.trace.seconds / total) if total else 0.0
    if share > 0.01:  # noqa: PLR2004
        shapes += f'<rect class="bar" y="{HEIGHT - 2}" width="{CARD * share:.1f}" height="2"/>'
    name = _fit(node.name, _NAME - len(node.time))
    labels = [
        Label(8, 17, name, f"name{idle}", title=node.name, depth=depth),
        Label(CARD - 8, 17, node.time, anchor="end"),
        Label(8, 33, values, "value bad" if failed else "value", title=node.values),
    ]
    return Block(CARD, HEIGHT, shapes, labels)


def _group(node: Node, body: Block, depth: int) -> Block:
    """Put a line with name, kind and time above a flow's steps; the link from above goes past."""
    kind = node.kind if node.kind != node.name else ""
    name, muted = _fit(node.name, _NAME), " · ".join(part for part in (kind, node.time) if part)
    failed, idle = node.state == "failed", "" if node.state else " idle"
    shift = 7.2 * _width(name) + 8
    end = shift + 6 * _width(muted)
    width = max(body.width, end)
    head = Block(
        width,
        HEAD,
        _line(width / 2, 0, width / 2, HEAD)
        if depth and node.shape != "graph" and end < width / 2
        else "",
        [
            Label(0, 11, name, f"name{idle}", title=node.name, depth=depth),
            Label(shift, 11, muted, "bad" if failed else idle, title=node.values),
        ],
    )
    return _join(width, body.height + HEAD, [head, body.at((width - body.width) / 2, HEAD)])


def _captioned(node: Node, block: Block, depth: int) -> Block:
    if not node.caption:
        return block
    caption = Label(0, 11, _fit(node.caption, _VALUE), title=node.caption, depth=depth)
    above = Block(block.width, CAPTION, labels=[caption])
    return _join(block.width, block.height + CAPTION, [above, block.at(0, CAPTION)])


def _column(blocks: list[Block]) -> Block:
    width = max((block.width for block in blocks), default=CARD)
    y, parts, links = 0.0, [], ""
    for block in blocks:
        if y:
            links += _line(width / 2, y, width / 2, y + LINK - 1) + _tip(width / 2, y + LINK)
            y += LINK
        parts.append(block.at((width - block.width) / 2, y))
        y += block.height
    return _join(width, y, parts, links)


def _row(blocks: list[Block]) -> Block:
    """Stand branches side by side between two rails."""
    height = max((block.height for block in blocks), default=HEIGHT)
    x, parts, middles, links = 0.0, [], [], ""
    for block in blocks:
        middles.append(x + block.width / 2)
        links += _line(middles[-1], 0, middles[-1], 8)
        links += _line(middles[-1], 8 + block.height, middles[-1], 16 + height)
        parts.append(block.at(x, 8))
        x += block.width + GAP
    links += "".join(_line(middles[0], y, middles[-1], y) for y in (0, 16 + height) if middles)
    return _join(x - GAP if blocks else CARD, height + 16, parts, links)


def _graph(node: Node, blocks: list[Block], depth: int) -> Block:
    """Layer a graph by the ranks of its steps and draw its edges behind them."""
    by_name = {child.name: block for child, block in zip(node.children, blocks, strict=True)}
    ranks = [[(name, by_name[name]) for name in rank] for rank in node.ranks]
    widths = [sum(block.width + GAP for _, block in rank) - GAP for rank in ranks]
    width = max(widths, default=CARD)
    y, tops, bottoms = 14.0 + RANK, {}, {START: (width / 2, 14.0)}
    ends = [Label(width / 2, 11, "input", anchor="middle", depth=depth)]
    parts = [Block(0, 0, labels=ends)]
    for rank, rank_width in zip(ranks, widths, strict=True):
        x = (width - rank_width) / 2
        for name, block in rank:
            parts.append(block.at(x, y))
            tops[name] = (x + block.width / 2, y)
            bottoms[name] = (x + block.width / 2, y + block.height)
            x += block.width + GAP
        y += max(block.height for _, block in rank) + RANK
    tops[END] = (width / 2, y)
    ends = [Label(width / 2, y + 12, "output", anchor="middle", depth=depth)]
    parts.append(Block(0, 0, labels=ends))
    edges = "".join(_edge(*bottoms[source], *tops[target]) for source, target in node.edges)
    return _join(width, y + 16, parts, edges)


def _edge(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = (y2 - y1) / 2
    path = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2 - 1:g}"
    return f'<path class="link" d="{path}"/>{_tip(x2, y2)}'


def _tip(x: float, y: float) -> str:
    path = f"M{x - 3:g} {y - 4:g}L{x:g} {y - 1:g}L{x + 3:g} {y - 4:g}"
    return f'<path class="link" d="{path}"/>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="link" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>'


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
