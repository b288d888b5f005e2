"""Print a server's options as JSON: `ENV/bin/python options.py vllm > lazynb/engines/vllm.json`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

WORDS = 12
"""A choice of more words than this is not listed."""


def parser_of(engine: str) -> argparse.ArgumentParser:
    """Return the parser of an installed server's command line."""
    if engine == "vllm":
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        sys.argv.append("--help")  # without it vLLM leaves the help out
        parser: argparse.ArgumentParser = make_arg_parser(FlexibleArgumentParser())
        return parser
    from lmdeploy.cli.serve import SubCliServe

    SubCliServe.add_parser_api_server()
    found: argparse.ArgumentParser = SubCliServe.subparsers.choices["api_server"]
    return found


def kind(action: argparse.Action) -> str | list[str]:
    """Return 'flag', 'bool' (which has a `--no-` form), 'int', 'float', 'str', 'list' or the words of a choice."""
    if action.nargs == 0:
        pair = any(name.startswith("--no-") for name in action.option_strings)
        return "bool" if pair else "flag"
    if action.nargs in ("+", "*"):
        return "list"
    if action.choices and 1 < len(words := [str(word) for word in action.choices]) <= WORDS:
        return words
    return action.type.__name__ if action.type in (int, float) else "str"


def described(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return name → (kind, one line of help)."""
    options = {}
    for action in parser._actions:
        name = next((flag for flag in action.option_strings if flag.startswith("--")), "")
        if name and action.dest != "help":
            line = " ".join((action.help or "").replace("==SUPPRESS==", "").split())
            line = line.split(". ")[0][:150].rstrip(".")
            options[name.removeprefix("--").replace("-", "_")] = [kind(action), line]
    return dict(sorted(options.items()))


if __name__ == "__main__":
    json.dump(described(parser_of(sys.argv[1])), sys.stdout, indent=0)
