"""Losses as a small SVG: raw values pale, the smoothed line strong, evaluations as dots, names at the lines.

Every front end shows it as it is, and it needs neither scripts nor matplotlib, which the kernel never imports.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.training.metrics import Point, Series

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 110, 12, 34
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which colour-blind readers tell apart."""
TICKS = 4


@dataclass(frozen=True)
class Line:
    """The losses of one run."""

    name: str
    loss: Series
    evaluated: Series


def draw(lines: Sequence[Line]) -> str:
    """Return an SVG of the losses over the steps. Its size does not grow with the runs' length."""
    points = [point for line in lines for point in (*line.loss.shown, *line.evaluated.shown)]
    frame = _Frame(points)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        'role="img" aria-label="Loss over steps" font-family="sans-serif" font-size="11">'
    )
    parts = [head, *frame.axes()]
    taken: set[str] = set()
    for line in lines:
        color = color_of(line.name, taken)
        smooth = line.loss.smoothed
        parts.append(_path(frame, line.loss.shown, color, 'stroke-opacity="0.3"'))
        parts.append(_path(frame, smooth, color, 'stroke-width="2"'))
        parts.append(f'<g fill="{color}">')
        parts += [
            f'<circle cx="{frame.x(step):.1f}" cy="{frame.y(value):.1f}" r="3.5">'
            f"<title>evaluation, step {step:.0f}: {value:.4g}</title></circle>"
            for step, value in line.evaluated.shown
        ]
        parts.append("</g>")
        if smooth:
            x, y = frame.x(smooth[-1][0]) + 6, frame.y(smooth[-1][1]) + 4
            value = f"{line.loss.shown[-1][1]:.3g}"
            label = value if len(lines) == 1 else f"{line.name[-11:]} {value}"
            parts.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}">{escape(label)}</text>')
    return "".join([*parts, "</svg>"])


def image(svg: str) -> str:
    """Return an SVG as an HTML image, which no front end need trust."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="Loss over steps" width="{WIDTH}" src="data:image/svg+xml;base64,{data}">'


def color_of(name: str, taken: set[str]) -> str:
    """Return the colour of a run: the same everywhere, unless another one in the picture has it."""
    start = crc32(name.encode()) % len(COLORS)
    order = [*COLORS[start:], *COLORS[:start]]
    color = next((color for color in order if color not in taken), order[0])
    taken.add(color)
    return color


class _Frame:
    """Where a step and a loss lie in the picture."""

    def __init__(self, points: Sequence[Point]) -> None:
        steps, values = [p[0] for p in points], [p[1] for p in points]
        self.first, self.last = min(steps, default=0), max(steps, default=1)
        low, high = min(values, default=0), max(values, default=1)
        self.step = _nice((high - low or abs(high) or 1) / TICKS)
        self.low = self.step * math.floor(low / self.step)
        self.high = self.step * max(math.ceil(high / self.step), math.floor(low / self.step) + 1)

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / ((self.last - self.first) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def axes(self) -> list[str]:
        grey = 'fill="#888"'
        parts = []
        for number in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + number * self.step
            y = self.y(value)
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#888" stroke-opacity="0.25"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" {grey}>{value:.4g}</text>'
            )
        bottom = HEIGHT - BOTTOM + 16
        parts += [
            f'<text x="{LEFT}" y="{bottom}" {grey}>{self.first:.0f}</text>',
            f'<text x="{WIDTH - RIGHT}" y="{bottom}" text-anchor="end" {grey}>{self.last:.0f}</text>',
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom}" text-anchor="middle" {grey}>step</text>',
            f'<text x="{LEFT}" y="{TOP - 3}" {grey}>loss</text>',
        ]
        return parts


def _nice(size: float) -> float:
    """Return a round number near a size: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= size)


def _path(frame: _Frame, points: Sequence[Point], color: str, style: str) -> str:
    if not points:
        return ""
    places = " ".join(f"{frame.x(step):.1f},{frame.y(value):.1f}" for step, value in points)
    return f'<polyline points="{places}" fill="none" stroke="{color}" {style}/>'
