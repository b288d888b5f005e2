"""What can stand on the line of a magic: one parser for each, from which help and completion are made as well.

Generation options have the names of the OpenAI API, with `-` or `_`; what an engine takes is passed through as
`--n-ctx 2048` or `n_ctx=2048`.
"""

from __future__ import annotations

import argparse
import shlex
from difflib import get_close_matches
from typing import Any, NoReturn

import msgspec

from lazynb.client.parameters import GENERATION_PARAMETERS
from lazynb.errors import OptionError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line with a suggestion."""

    def __init__(self, prog: str, description: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("add_help", False)
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, description=description, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise an OptionError instead of ending the kernel."""
        raise OptionError(f"{self.prog}: {message}", hint=f"See %lazyllm help{self._topic}.")

    @property
    def _topic(self) -> str:
        return " ask" if self.prog.startswith("%%") else self.prog.removeprefix("%lazyllm")

    def parse(self, line: str) -> argparse.Namespace:
        """Parse a line; an unknown option suggests the near ones."""
        arguments, unknown = self.parse_known_args(split(line))
        if unknown:
            word = unknown[0].partition("=")[0]
            near = get_close_matches(_dashed(word), self.options(), n=3)
            if not word.startswith("-"):
                raise OptionError(
                    f"{self.prog}: {word!r} is one word too many",
                    hint="The prompt goes into the lines below." if self._topic == " ask" else "",
                )
            hint = (
                f"Did you mean {', '.join(near)}?" if near else f"See %lazyllm help{self._topic}."
            )
            raise OptionError(f"{self.prog} has no option {word}", hint=hint)
        return arguments

    def options(self) -> list[str]:
        """Return the options, in the spelling that is shown."""
        return [action.option_strings[0] for action in self._actions if action.option_strings]


def split(line: str) -> list[str]:
    """Split a line into words as a shell does."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise OptionError(f"The line cannot be read: {error}", hint="Close the quotes.") from None


def ask_parser() -> Parser:
    """Return the parser of `%%lazyllm`."""
    parser = Parser("%%lazyllm", "Ask a model; the lines below are the prompt.")
    parser.add_argument(
        "model", metavar="MODEL", help="a model, its path, or a variable that holds a module"
    )
    parser.add_argument("-o", "--output", metavar="VAR", help="keep the answer in a variable")
    parser.add_argument("--chat", metavar="NAME", help="go on with a conversation")
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument(
        "--bg", action="store_true", help="return at once; the answer goes on by itself"
    )
    parser.add_argument("--raw", action="store_true", help="the text alone, as printed text")
    parser.add_argument(
        "--engine", default="auto", metavar="NAME", help="the engine that serves the model"
    )
    group = parser.add_argument_group("generation (the names of the OpenAI API)")
    for name, kind in GENERATION_PARAMETERS.items():
        flag = f"--{name.replace('_', '-')}"
        names = dict.fromkeys([flag, f"--{name}"])
        group.add_argument(
            *names,
            dest=f"generation {name}",
            type=_reader(name, kind),
            metavar=_kind(kind),
            help=argparse.SUPPRESS,
        )
    return parser


def deploy_parser() -> Parser:
    """Return the parser of `%lazyllm deploy`."""
    parser = Parser(
        "%lazyllm deploy", "Start a model in the background. Again for a running one is free."
    )
    parser.add_argument("model", metavar="MODEL", help="a model's name or path")
    parser.add_argument(
        "--engine", default="auto", metavar="NAME", help="the engine that serves it"
    )
    parser.add_argument("--port", type=int, metavar="N", help="a fixed port (default: a free one)")
    parser.add_argument("--keep", action="store_true", help="it outlives this kernel")
    parser.add_argument(
        "--idle", type=float, metavar="SECONDS", help="stop it when it is not used for so long"
    )
    parser.add_argument("--wait", action="store_true", help="return when it is ready")
    return parser


def finetune_parser() -> Parser:
    """Return the parser of `%lazyllm finetune`."""
    parser = Parser("%lazyllm finetune", "Fine-tune a model in the background.")
    parser.add_argument("model", metavar="MODEL", help="a model's name or path")
    parser.add_argument("data", metavar="DATA", help="a file, or a variable that holds rows")
    parser.add_argument(
        "--target", default="", metavar="NAME", help="where the weights go (default: MODEL-tuned)"
    )
    parser.add_argument(
        "--method", default="auto", metavar="NAME", help="llamafactory, flagembedding"
    )
    parser.add_argument("-o", "--output", metavar="VAR", help="keep the run in a variable")
    parser.add_argument("--wait", action="store_true", help="return when it is finished")
    parser.add_argument(
        "--preview", action="store_true", help="only show what the model will see, and its tokens"
    )
    return parser


def engine_options(words: list[str], command: str = "deploy") -> dict[str, str]:
    """Read an engine's own options: `--n-ctx 2048`, `--n-ctx=2048`, `n_ctx=2048` or a lone `--flag`."""
    options: dict[str, str] = {}
    rest = iter(range(len(words)))
    for index in rest:
        name, equals, value = words[index].partition("=")
        if not name.startswith("--") and not equals:
            raise OptionError(f"%lazyllm {command}: {words[index]!r} is one word too many")
        following = words[index + 1] if index + 1 < len(words) else ""
        if not equals and following and not following.startswith("--") and "=" not in following:
            value = words[next(rest)]
        elif not equals:
            value = "true"
        options[name.lstrip("-").replace("-", "_")] = value
    return options


def generation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the generation parameters that were given."""
    given = {name: getattr(arguments, f"generation {name}") for name in GENERATION_PARAMETERS}
    return {name: value for name, value in given.items() if value is not None}


def _reader(name: str, kind: type) -> Any:
    def read(text: str) -> Any:
        if kind in (str, float, int, bool):
            return msgspec.convert(text.lower() if kind is bool else text, kind, strict=False)
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            if kind is dict:
                raise argparse.ArgumentTypeError(f"{name} is JSON, not {text!r}") from None
            return [text] if kind is list else text

    def checked(text: str) -> Any:
        try:
            return read(text)
        except msgspec.ValidationError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {_kind(kind).lower()}") from None

    return checked


def _kind(kind: type) -> str:
    return {float: "NUMBER", int: "INTEGER", bool: "TRUE|FALSE", str: "TEXT"}.get(kind, "JSON")


def _dashed(word: str) -> str:
    return word[:2] + word[2:].replace("_", "-")
