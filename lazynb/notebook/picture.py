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
    """Write losses into a file: whole, or not at all.

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
        A PNG or PDF is wanted, and the trainer, whose matplotlib draws it, is not installed.
    LazynbError
        It cannot be drawn, or not be written.
    """
    path = Path(file).expanduser().absolute()
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise OptionError(f"{path.name} is not a picture", hint=f"Name it with {', '.join(KINDS)}.")
    data = draw(lines).encode() if kind == ".svg" else _drawn(lines, kind[1:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise LazynbError(f"{path} cannot be written: {error.strerror}") from None
    return path


def _drawn(lines: Sequence[Line], kind: str) -> bytes:
    """Have matplotlib draw the losses, in a process of its own."""
    from lazynb.engines import interpreter
    from lazynb.jobs.program import environment
    from lazynb.training.trainer import get

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
    ran = subprocess.run(
        [interpreter(get("llamafactory")), str(PROGRAM), kind],
        input=json.dumps(sent).encode(),
        env=environment({}, ""),
        capture_output=True,
        check=False,
    )
    if ran.returncode:
        said = ran.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise LazynbError(
            f"matplotlib cannot draw the picture: {said}", hint="An .svg is drawn without it."
        )
    return ran.stdout
