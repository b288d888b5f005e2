"""Completion for the magics with Tab: commands, options, and the names of models."""

from __future__ import annotations

from typing import Any

from lazynb import hub
from lazynb.config import SETTINGS, config
from lazynb.notebook.arguments import ask_parser, deploy_parser, finetune_parser
from lazynb.notebook.commands import COMMANDS

MODELS = ("deploy", "finetune", "pull", "models", "rm")


def complete(_: Any, event: Any) -> list[str]:
    """Return what could stand where the cursor is; `event` is IPython's."""
    words = event.line.split()
    position = len(words) - (0 if event.line.endswith(" ") else 1)
    cell = event.line.lstrip().startswith("%%")
    if position <= 1 and not cell:
        return list(COMMANDS)
    command = "" if cell else words[1]
    if event.symbol.startswith("-"):
        if cell:
            return ask_parser().options()
        return _options(command)
    if (cell and position == 1) or (command in MODELS and position == 2):  # noqa: PLR2004
        return [*hub.known_names(), *_running()]
    return {
        "stop": [*_running(), "all"],
        "logs": _running(),
        "show": ["last"],
        "config": [f"{name}=" for name in SETTINGS],
        "help": ["ask", *COMMANDS],
    }.get(command, [])


def _options(command: str) -> list[str]:
    if command == "finetune":
        from lazynb.training.llamafactory import trainer

        passed = [f"--{name.replace('_', '-')}" for name in trainer.options]
        return [*finetune_parser().options(), *passed]
    return deploy_parser().options() if command == "deploy" else []


def _running() -> list[str]:
    if not config.jobs_dir.exists():
        return []
    from lazynb.jobs import manager

    return [job.name for job in manager().jobs() if job.live]
