"""Why a program failed, in words.

The engine's own rules come first, then those that hold for every program, then the last line that looks like
an exception.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from lazynb.jobs.spec import CauseRule

if TYPE_CHECKING:
    from collections.abc import Sequence

ADDRESS_IN_USE = re.compile(r"address already in use|address in use|EADDRINUSE", re.IGNORECASE)

LESS = "Stop other services (%lazyllm ps), or use a smaller model or a shorter context."

_GENERIC = [
    CauseRule(
        r"No space left on device|Disk quota exceeded",
        "the disk is full",
        "Free some space, or set LAZYLLM_HOME to a folder on another disk.",
    ),
    CauseRule(
        r"CUDA out of memory|CUDA (?:runtime )?error: out of memory|cudaMalloc failed: out of memory|OutOfMemoryError",
        "the GPU has not enough free memory",
        LESS,
        memory=True,
    ),
    CauseRule(
        r"MemoryError|std::bad_alloc|[Cc]annot allocate memory|can't allocate memory|(?:failed|unable) to allocate"
        r"|insufficient memory",
        "the machine has not enough free memory",
        LESS,
        memory=True,
    ),
    CauseRule(
        ADDRESS_IN_USE.pattern,
        "its port is taken by another program",
        "Choose another port, or none: a free one is found.",
    ),
    CauseRule(
        r"ModuleNotFoundError: No module named '(?P<module>[^']+)'",
        "its Python environment lacks the module {module}",
        "Install it into the engine's environment.",
    ),
]
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception)\b: .+")


def diagnose(
    lines: Sequence[str],
    returncode: int,
    rules: Sequence[CauseRule],
    *,
    advice: str = "",
    killed: bool = False,
) -> tuple[str, str]:
    """Find the cause of a failure and what to do about it.

    Parameters
    ----------
    lines : sequence of str
        The last lines of the log.
    returncode : int
        What the program returned; negative for a signal.
    rules : sequence of CauseRule
        The engine's own.
    advice : str
        What the program takes and what would take less, for when memory ran out.
    killed : bool
        Whether the system killed a process for want of memory meanwhile.

    Returns
    -------
    tuple of str
        Cause and hint; the hint may be empty.
    """
    if killed:
        return "the machine ran out of memory, and the system killed it", f"{LESS} {advice}".strip()
    for rule in [*rules, *_GENERIC]:
        pattern = re.compile(rule.pattern)
        for line in reversed(lines):
            if match := pattern.search(line):
                groups = {name: text or "" for name, text in match.groupdict().items()}
                hint = f"{_filled(rule.hint, groups)} {advice if rule.memory else ''}"
                return _filled(rule.cause, groups), hint.strip()
    if returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return (
            "it was killed by signal 9: the machine probably ran out of memory",
            f"{LESS} {advice}".strip(),
        )
    for line in reversed(lines):
        if _EXCEPTION.match(line):
            return line, ""
    return ended(returncode), ""


def killed_for_memory() -> int:
    """Return how many processes the system has killed for want of memory since it booted; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def ended(returncode: int) -> str:
    """Say how a program ended."""
    if returncode < 0:
        try:
            name = signal.Signals(-returncode).name
        except ValueError:
            name = "unknown"
        return f"it was killed by signal {-returncode} ({name})"
    return f"it ended with exit code {returncode}"


def cannot_run(error: OSError | ValueError, argv: Sequence[str]) -> tuple[str, str]:
    """Say why a program could not even be started, and what to do."""
    if not argv or not isinstance(error, OSError) or error.errno is None:
        return f"it cannot be run: {error}", ""
    hint = (
        "The engine's environment is gone: install it again." if error.errno == errno.ENOENT else ""
    )
    return f"{error.filename or argv[0]} cannot be run: {os.strerror(error.errno)}", hint


def _filled(text: str, groups: dict[str, str]) -> str:
    for name, value in groups.items():
        text = text.replace(f"{{{name}}}", value)
    return text
