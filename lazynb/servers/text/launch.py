"""Start an engine's own server: unpack GGUF weights first where it cannot read them, and hand over the key.

    python launch.py MODULE --lazynb-gguf FILE --lazynb-unpacked FOLDER --lazynb-key FLAG ARGUMENTS…

The server replaces this program. Where it takes its key as an argument alone (FLAG), it runs inside of this program
instead: the arguments of a process can be read by every user of the machine. It asks for the key on every route then.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from process import die_with_parent, progress


def main() -> None:
    """Become the server."""
    die_with_parent()
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("module")
    parser.add_argument("--lazynb-gguf", type=Path)
    parser.add_argument("--lazynb-unpacked", type=Path)
    parser.add_argument("--lazynb-key", default="")
    ours, theirs = parser.parse_known_args()
    if ours.lazynb_gguf:
        full_precision(ours.lazynb_gguf, ours.lazynb_unpacked)
    progress("starting the engine")
    if not ours.lazynb_key:
        os.execv(sys.executable, [sys.executable, "-m", ours.module, *theirs])  # noqa: S606
    key = os.environ.pop("LAZYNB_KEY")
    guard_uvicorn(key)
    sys.argv = [ours.module, *theirs, ours.lazynb_key, key]
    sys.path[0] = ""  # not this folder
    runpy.run_module(ours.module, run_name="__main__", alter_sys=True)


def guard_uvicorn(key: str) -> None:
    """Have every application that uvicorn serves ask for the key."""
    if not find_spec("uvicorn"):
        return
    sys.path.append(str(Path(__file__).parents[1] / "guard"))
    import uvicorn
    from lazynb_guard import Guard

    loaded = uvicorn.Config.load

    def load(config: uvicorn.Config) -> None:
        loaded(config)
        config.loaded_app = Guard(config.loaded_app, key)

    uvicorn.Config.load = load


def full_precision(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's weights as a folder that transformers reads, once per machine."""
    if folder.is_dir():
        return
    sys.path.append(str(Path(__file__).parents[1] / "tuning"))
    from weights import unpack

    progress("unpacking the weights to full precision, once")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unpack(gguf, folder)


if __name__ == "__main__":
    main()
