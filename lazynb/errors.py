"""What can go wrong, in words a person can act on.

Every error that lazynb raises on purpose is a `LazynbError`: one sentence that says what happened,
and a `hint` that says what to do about it. The magics show exactly that, without a traceback.
"""

from __future__ import annotations


class LazynbError(Exception):
    """An error with a cause and a remedy.

    Parameters
    ----------
    message : str
        What happened, in one sentence.
    hint : str, optional
        What the user can do about it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ModelNotFoundError(LazynbError):
    """No model of that name: says where it was looked for, and which names are near."""


class OptionError(LazynbError):
    """An option, a generation parameter or a setting that does not exist or does not fit."""


class EngineNotInstalledError(LazynbError):
    """The engine has no environment on this machine; the hint installs it."""


class NotEnoughMemoryError(LazynbError):
    """A model does not fit into the memory that is free; the hint says what would."""


class JobError(LazynbError):
    """A background job failed.

    Attributes
    ----------
    job : str
        The job's name.
    returncode : int or None
        What the process returned; negative for a signal.
    log_tail : list of str
        The last lines of its log.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        job: str = "",
        returncode: int | None = None,
        log_tail: list[str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.job = job
        self.returncode = returncode
        self.log_tail = log_tail or []


class ServiceError(LazynbError):
    """A request to a model's service failed.

    Attributes
    ----------
    service : str
        Which service: its name or its url.
    status : int or None
        The HTTP status, or None when no answer came.
    """

    def __init__(
        self, message: str, *, hint: str = "", service: str = "", status: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.service = service
        self.status = status


class FlowError(LazynbError):
    """A flow is put together, or called, in a way that cannot work."""
