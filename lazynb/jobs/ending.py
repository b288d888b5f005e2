"""How a job ends: stopped or failed, and for which reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynb.jobs import ports

if TYPE_CHECKING:
    from lazynb.jobs.spec import Phase


class Ending(Exception):  # noqa: N818  (not always an error: every job ends so)
    """The job is over.

    Parameters
    ----------
    phase : str
        'stopped' or 'failed'.
    cause : str
        Why, in words.
    hint : str
        What the user can do.
    returncode : int, optional
        What the program returned.
    """

    def __init__(
        self, phase: Phase, cause: str = "", hint: str = "", returncode: int | None = None
    ) -> None:
        super().__init__(cause)
        self.phase = phase
        self.cause = cause
        self.hint = hint
        self.returncode = returncode


def port_taken(port: int) -> Ending:
    """Say who holds the port that was asked for."""
    return Ending(
        "failed",
        f"port {port} is taken by {ports.holder(port)}",
        "Stop that process, or choose another port; without one a free port is found.",
    )


def not_ready(seconds: float, last_answer: str) -> Ending:
    """Say how long a service was waited for, and what it answered last."""
    answer = f"; its last answer: {last_answer}" if last_answer else ""
    return Ending(
        "failed",
        f"it was not ready within {seconds:g} s{answer}",
        "The log tells what it did. LAZYLLM_START_TIMEOUT gives it more seconds.",
    )


def idle(seconds: float) -> Ending:
    """Say that nobody used a service for so long."""
    span = f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"  # noqa: PLR2004
    return ended_for(f"idle for {span}")


def ended_for(why: str) -> Ending:
    """Say why a service was stopped, where it was not its user who did."""
    return Ending("stopped", why, "It starts again when it is used." if why else "")
