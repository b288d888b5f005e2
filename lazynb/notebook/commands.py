"""The sub-commands of `%lazyllm`: each takes the rest of the line and returns what the cell shows."""

from __future__ import annotations

import sys
import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from lazynb.config import SETTINGS, config
from lazynb.errors import OptionError
from lazynb.notebook import models, training
from lazynb.notebook.arguments import Parser, deploy_parser, engine_options, split

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynb.jobs import Job
    from lazynb.notebook.magics import LazyMagics

RECENT = 3600.0  # seconds for which a failed job is listed


def deploy(_: LazyMagics, line: str) -> None:
    """Start a model: deploy MODEL [--engine E] [--port N] [--keep] [--idle S] [--wait] [engine options]."""
    from lazynb.notebook.progress import show_job
    from lazynb.service import service

    arguments, rest = deploy_parser().parse_known_args(split(line))
    job = service(
        arguments.model,
        engine=arguments.engine,
        options=engine_options(rest),
        keep=arguments.keep,
        port=arguments.port,
        idle=arguments.idle,
    )
    show_job(job, block=arguments.wait)


def ps(_: LazyMagics, line: str) -> Any:
    """List what runs, what it takes and does, and what failed or was stopped for want of use in the last hour."""
    from lazynb.jobs import manager
    from lazynb.notebook.services import JobTable

    Parser("%lazyllm ps").parse(line)
    recent = time.time() - RECENT
    jobs = manager().jobs()
    live = [job for job in jobs if job.live]
    names = {job.name for job in live}
    ended = [job for job in jobs if job not in live and job.state.since > recent]
    failed = [job for job in ended if job.state.phase == "failed"]
    unused = [
        j for j in ended if j.state.phase == "stopped" and j.state.hint and j.name not in names
    ]
    shown = {job.id for job in (*live, *failed, *unused)}
    return JobTable([job for job in jobs if job.id in shown])


def stop(_: LazyMagics, line: str) -> None:
    """Stop a model: stop NAME, or stop all (this kernel's and the kept ones)."""
    from lazynb.jobs import manager

    name = _one(line, "stop", "Name a running model, or all")
    if name == "all":
        jobs = [job for job in manager().jobs() if job.live and (job.owned or job.spec.keep)]
    else:
        jobs = [_find(name)]
    for job in jobs:
        job.stop(wait=False)
    for job in jobs:
        job.stop()
        sys.stdout.write(f"{job.name} · stopped\n")
    if not jobs:
        sys.stdout.write("Nothing is running.\n")


def logs(_: LazyMagics, line: str) -> None:
    """Show the last lines of a model's log: logs NAME [-n 50]."""
    parser = Parser("%lazyllm logs")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-n", type=int, default=50, metavar="LINES")
    arguments = parser.parse(line)
    sys.stdout.write("\n".join(_find(arguments.name, ended=True).tail(arguments.n)) + "\n")


def show(magics: LazyMagics, line: str) -> None:
    """Bring an answer back: show last, or show VAR."""
    from lazynb.notebook.frontend import Display
    from lazynb.notebook.settle import settled
    from lazynb.streaming import Answer

    name = _one(line, "show", "Say show last, or the name of a variable")
    answer = magics.last if name == "last" else magics.shell.user_ns.get(name)
    if not isinstance(answer, Answer):
        hint = "There is no answer yet." if name == "last" else "It is what -o VAR stored."
        raise OptionError(f"{name!r} is no answer", hint=hint)
    Display(settled(answer))


def chat(magics: LazyMagics, line: str) -> None:
    """List conversations, or forget one: chat [NAME --clear]."""
    parser = Parser("%lazyllm chat")
    parser.add_argument("name", metavar="NAME", nargs="?")
    parser.add_argument("--clear", action="store_true")
    arguments = parser.parse(line)
    if arguments.clear and arguments.name:
        if not magics.chats.clear(arguments.name):
            raise OptionError(f"There is no conversation {arguments.name!r}")
        return
    for name, turns in magics.chats.names().items():
        sys.stdout.write(f"{name} · {turns} turn{'s' if turns != 1 else ''}\n")


def install(_: LazyMagics, line: str) -> None:
    """Make or update the environment of an engine: install ENGINE."""
    from lazynb.engines import environment

    name = _one(line, "install", f"Name an engine: {', '.join(environment.names())}")
    environment.install(name, _say)


def doctor(_: LazyMagics, line: str) -> None:
    """Say what is broken on this machine and in the environments, and mend what can be mended."""
    from lazynb.engines.doctor import doctor as examine

    Parser("%lazyllm doctor").parse(line)
    for found in examine():
        _say(found)


def settings(_: LazyMagics, line: str) -> None:
    """Show the settings, or change one for this kernel: config [NAME=VALUE]."""
    name, equals, value = line.strip().partition("=")
    if equals:
        setattr(config, name.strip().lower().removeprefix("lazyllm_"), value.strip())
    names = [name.strip().lower().removeprefix("lazyllm_")] if name else list(SETTINGS)
    for setting in names:
        shown, origin = config.lookup(setting)
        sys.stdout.write(f"{setting} = {shown!r}  ({origin})  {SETTINGS[setting].help}\n")


def help_(_: LazyMagics, line: str) -> None:
    """Show this help: help [COMMAND], help ask for the cell magic."""
    from lazynb.notebook.help import text

    sys.stdout.write(text(line.strip()) + "\n")


COMMANDS: dict[str, Callable[[LazyMagics, str], Any]] = {
    "deploy": deploy,
    "ps": ps,
    "stop": stop,
    "logs": logs,
    "show": show,
    "chat": chat,
    "models": models.models,
    "pull": models.pull,
    "rm": models.rm,
    "install": install,
    "doctor": doctor,
    "config": settings,
    "finetune": training.finetune,
    "runs": training.runs,
    "plot": training.plot,
    "help": help_,
}


def run(magics: LazyMagics, line: str) -> Any:
    """Run a sub-command."""
    name, _, rest = line.strip().partition(" ")
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=2) or list(COMMANDS)
        raise OptionError(
            f"%lazyllm has no command {name!r}" if name else "%lazyllm needs a command",
            hint=f"Did you mean {', '.join(near)}? To ask a model, use %%lazyllm MODEL.",
        )
    return COMMANDS[name](magics, rest)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _one(line: str, command: str, wanted: str) -> str:
    words = split(line)
    if len(words) != 1:
        raise OptionError(f"%lazyllm {command} takes one name", hint=f"{wanted}.")
    return words[0]


def _find(name: str, *, ended: bool = False) -> Job:
    from lazynb.jobs import manager

    jobs = manager().jobs()
    found = manager().find(name) or next(
        (j for j in jobs if ended and name in (j.name, j.id)), None
    )
    if found is None:
        names = [job.name for job in jobs if job.live or ended]
        near = get_close_matches(name, names, n=3) or names[:5]
        hint = f"There is: {', '.join(dict.fromkeys(near))}." if near else "Nothing is running."
        raise OptionError(f"No model {name!r} is running", hint=hint)
    return found
