"""Losses as a picture, drawn with matplotlib: `python picture.py png|pdf`, from standard input to standard output.

Runs in the trainer's environment, by path: the kernel needs no matplotlib, and keeps the user's as it is. It reads
a JSON list of objects: `name`, `color`, and the points [step, loss] `loss`, `smoothed` and `evaluated`.
"""

from __future__ import annotations

import json
import logging
import sys

from matplotlib import rcParams
from matplotlib.figure import Figure

FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei"]
"""For names in Chinese; those that a machine lacks are passed over."""


def main() -> None:
    """Write the picture."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    rcParams["font.family"] = FONTS
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for line in json.load(sys.stdin):
        look = {"color": line["color"]}
        axes.plot(*zip(*line["loss"], strict=True), **look, alpha=0.3, linewidth=1)
        axes.plot(*zip(*line["smoothed"], strict=True), **look, linewidth=2, label=line["name"])
        if line["evaluated"]:
            axes.plot(*zip(*line["evaluated"], strict=True), "o", **look, markersize=5)
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(sys.stdout.buffer, format=sys.argv[1], dpi=200)


if __name__ == "__main__":
    main()
