"""`python -m lazynb`: what a shell needs of lazynb.

python -m lazynb install ENGINE     make or update the environment of an engine
python -m lazynb doctor             say what is broken on this machine, and mend what can be mended
"""

from __future__ import annotations

import argparse
import sys

from lazynb.engines.doctor import doctor
from lazynb.engines.environment import install, names
from lazynb.errors import LazynbError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m lazynb", description="A Jupyter toolkit for local models."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    installing = commands.add_parser("install", help="make or update the environment of an engine")
    installing.add_argument("engine", nargs="+", help=", ".join(names()))
    commands.add_parser("doctor", help="say what is broken, and mend what can be mended")
    given = parser.parse_args(arguments)
    try:
        if given.command == "install":
            for engine in given.engine:
                install(engine, _say)
        else:
            for line in doctor():
                _say(line)
    except LazynbError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
