"""Numbers as colours: small images without scripts, styles or libraries, which every front end shows as they are.

Cells are pixels of a PNG. Where there are labels, that PNG lies inside of an SVG image. White is the middle of the
scale, blue above it and orange below.
"""

from __future__ import annotations

import base64
import struct
import unicodedata
import zlib
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ABOVE, BELOW = (0x00, 0x5A, 0x9C), (0xD5, 0x5E, 0x00)
"""Colours that colour-blind readers tell apart."""
MIDDLE = 127  # of 255 shades
GREY = "#808080"  # is read on a light page and on a dark one
DARK_CELL = 0.7  # from this value on, text on a cell is white


def png(rows: Sequence[Sequence[float]], size: int) -> bytes:
    """Return an image with a square for each value.

    Parameters
    ----------
    rows : sequence of sequences of float
        Values from -1 (orange) over 0 (white) to 1 (blue); rows that are shorter end in white.
    size : int
        Pixels of a square's side.
    """
    width = max(map(len, rows))
    lines = [
        b"\0" + bytes(shade for value in row for shade in [_shade(value)] * size)
        + bytes([MIDDLE]) * (size * (width - len(row)))
        for row in rows
    ]  # fmt: skip
    pixels = b"".join(line * size for line in lines)
    header = struct.pack(">IIBBBBB", width * size, len(rows) * size, 8, 3, 0, 0, 0)
    palette = b"".join(_color(shade) for shade in range(2 * MIDDLE + 1))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"PLTE", palette)
        + _chunk(b"IDAT", zlib.compress(pixels, 9))
        + _chunk(b"IEND", b"")
    )


def image(data: bytes, kind: str, alt: str) -> str:
    """Return an HTML image; `kind` is 'png' or 'svg+xml'."""
    return f'<img alt="{escape(clean(alt))}" src="{_address(data, kind)}">'


def matrix(
    rows: Sequence[Sequence[float]],
    labels: Sequence[str],
    values: Sequence[Sequence[str]],
    size: int,
) -> bytes:
    """Return an SVG of a square matrix.

    Parameters
    ----------
    rows : sequence of sequences of float
        What the colours tell, from 0 to 1.
    labels : sequence of str
        What stands at the rows, if anything; their numbers stand at the columns.
    values : sequence of sequences of str
        What is written into the cells, if anything.
    size : int
        Pixels of a cell's side.
    """
    left = round(5.7 * max(map(columns, labels))) + 6 if labels else 0
    top = 18 if labels else 0
    side = size * len(rows)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + side}" height="{top + side}" '
        f'font-family="sans-serif" font-size="11"><image x="{left}" y="{top}" width="{side}" '
        f'height="{side}" href="{_address(png(rows, size), "png")}"/>'
    )
    parts = [head]
    for number, label in enumerate(labels):
        center = (number + 0.5) * size
        parts += [
            _text(left - 6, top + center + 4, "end", GREY, label),
            _text(left + center, top - 6, "middle", GREY, str(number + 1)),
        ]
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            ink = "#fff" if rows[y][x] >= DARK_CELL else "#222"
            place = left + (x + 0.5) * size, top + (y + 0.5) * size + 4
            parts.append(_text(*place, "middle", ink, value))
    return "".join([*parts, "</svg>"]).encode()


def bar(share: float, width: int = 120, height: int = 8) -> str:
    """Return a bar as an HTML image: `share` of `width` pixels."""
    length = max(1, round(min(max(share, 0), 1) * width))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f'<rect width="{width}" height="{height}" fill="{GREY}" fill-opacity="0.2"/>'
        f'<rect width="{length}" height="{height}" fill="#0072b2"/></svg>'
    )
    return image(svg.encode(), "svg+xml", "")


def clean(text: str) -> str:
    """Replace what XML cannot hold, or a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def columns(text: str) -> int:
    """Return how wide a text is, in letters."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _shade(value: float) -> int:
    return MIDDLE + round(MIDDLE * min(max(value, -1), 1))


def _color(shade: int) -> bytes:
    share = abs(shade - MIDDLE) / MIDDLE
    end = ABOVE if shade > MIDDLE else BELOW
    return bytes(round(255 + (part - 255) * share) for part in end)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _text(x: float, y: float, anchor: str, color: str, text: str) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{color}">'
        f"{escape(clean(text))}</text>"
    )
