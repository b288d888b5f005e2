"""The sub-commands of `%lazyllm` for fine-tuning: finetune, runs, plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynb.errors import OptionError
from lazynb.notebook.arguments import Parser, engine_options, finetune_parser, split

if TYPE_CHECKING:
    from lazynb.notebook.magics import LazyMagics


def finetune(magics: LazyMagics, line: str) -> Any:
    """Fine-tune a model in the background: finetune MODEL DATA [--target T] [--preview] [-o VAR] [--wait] [options]."""
    from lazynb.notebook.curve import show_run
    from lazynb.training import preview, start

    arguments, rest = finetune_parser().parse_known_args(split(line))
    data: Any = magics.shell.user_ns.get(arguments.data, arguments.data)
    options = engine_options(rest, "finetune")
    if arguments.preview:
        return preview(arguments.model, data, method=arguments.method, options=options)
    run = start(
        arguments.model, data, target=arguments.target, method=arguments.method, options=options
    )
    if arguments.output:
        magics.shell.user_ns[arguments.output] = run
    show_run(run, block=arguments.wait)
    return None


def runs(_: LazyMagics, line: str) -> Any:
    """List fine-tuning runs: runs [TARGET]."""
    from lazynb.notebook.tables import RunTable
    from lazynb.training import runs as find_runs

    parser = Parser("%lazyllm runs")
    parser.add_argument("target", metavar="TARGET", nargs="?", default="")
    return RunTable(find_runs(parser.parse(line).target))


def plot(_: LazyMagics, line: str) -> None:
    """Draw the losses of runs into one picture: plot RUN [RUN ...] [-o FILE.png|.pdf|.svg]."""
    from lazynb.notebook.curve import plot_runs
    from lazynb.training import find

    parser = Parser("%lazyllm plot")
    parser.add_argument("runs", metavar="RUN", nargs="*")
    parser.add_argument("-o", "--output", metavar="FILE", default="")
    arguments = parser.parse(line)
    if not arguments.runs:
        raise OptionError("%lazyllm plot needs a run", hint="%lazyllm runs lists them.")
    plot_runs([find(name) for name in arguments.runs], arguments.output)
