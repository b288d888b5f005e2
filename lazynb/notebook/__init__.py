"""The notebook layer: magics and live views. `%load_ext lazynb` comes here."""

from __future__ import annotations

from typing import Any

from lazynb.config import config


def load_ipython_extension(shell: Any) -> None:
    """Register the magics, their completion, and how an answer is displayed; imports nothing heavy."""
    from lazynb.notebook.magics import LazyMagics

    magics = LazyMagics(shell)
    shell.register_magics(magics)
    for name in ("%lazyllm", "%%lazyllm"):
        shell.set_hook("complete_command", _complete, str_key=name)
    shell.display_formatter.ipython_display_formatter.for_type_by_name(
        "lazynb.streaming", "Answer", magics.display_answer
    )
    if config.jobs_dir.exists() and any(config.jobs_dir.iterdir()):
        from threading import Thread

        Thread(target=_collect, name="lazynb-collect", daemon=True).start()


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics away; what runs goes on."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("lazyllm", None)


def _complete(shell: Any, event: Any) -> list[str]:
    from lazynb.notebook.completion import complete

    return complete(shell, event)


def _collect() -> None:
    """Clean up after supervisors that were killed; `manager` does so when it is first used."""
    from lazynb.jobs import manager

    manager()
