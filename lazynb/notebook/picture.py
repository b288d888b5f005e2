"""Curves of losses as files, for papers and slides."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from lazynb.errors import LazynbError, OptionError
from lazynb.notebook.drawing import color_of, draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.notebook.drawing import Line

PROGRAM = Path(__file__).parents[1] / "servers" / "tuning" / "picture.py"
KINDS = (".svg", ".png", ".pdf")


def save(lines: Sequence[Line], file: str) -> Path:
    """Write losses into a file. An SVG is written at once; a PNG or PDF is drawn by the trainer's matplotlib.

    Parameters
    ----------
    lines : sequence of Line
        The runs.
    file : str
        Its suffix says which kind it is.

    Raises
    ------
    OptionError
        It is of no known kind.
    EngineNotInstalledError
        A PNG or PDF is wanted, and the trainer is not installed.
    LazynbError
        It cannot be written.
    """
    from lazynb.engines import interpreter
    from lazynb.jobs.program import environment
    from lazynb.training.trainer import get

    path = Path(file).expanduser().absolute()
    if path.suffix.lower() not in KINDS:
        raise OptionError(f"{path.name} is not a picture", hint=f"Name it with {', '.join(KINDS)}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".svg":
            path.write_text(draw(lines), encoding="utf-8")
            return path
    except OSError as error:
        raise LazynbError(f"{path} cannot be written: {error.strerror}") from None
    taken: set[str] = set()
    sent = [
        {
            "name": line.name,
            "color": color_of(line.name, taken),
            "loss": line.loss.shown,
            "smoothed": line.loss.smoothed,
            "evaluated": line.evaluated.shown,
        }
        for line in lines
    ]
    drawn = subprocess.run(
        [interpreter(get("llamafactory")), str(PROGRAM), str(path)],
        input=json.dumps(sent),
        env=environment({}, ""),
        capture_output=True,
        text=True,
        check=False,
    )
    if drawn.returncode:
        said = drawn.stderr.strip().rpartition("\n")[2]
        raise LazynbError(f"{path} cannot be drawn: {said}", hint="An .svg needs no matplotlib.")
    return path
