"""The folder of one job: the only place where its facts are kept.

Every file is replaced as a whole, so a reader sees the old content or the new one, never a half of it.
Nobody but the user can read any of it: the folder is 0700 and its files are 0600.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lazynb.jobs.spec import Command, JobSpec, JobState

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class JobFolder:
    """The files of one job."""

    path: Path

    @property
    def log(self) -> Path:
        """What the program wrote."""
        return self.path / "log"

    @property
    def old_log(self) -> Path:
        """The part of the log before the last rotation."""
        return self.path / "log.1"

    @property
    def events(self) -> Path:
        """One JSON line per phase."""
        return self.path / "events.jsonl"

    @property
    def used(self) -> Path:
        """An empty file whose time is the last moment at which a request was seen under way."""
        return self.path / "used"

    def mark_used(self) -> None:
        """Write down that a request is under way at this moment."""
        with suppress(OSError):  # a full disk, a folder that was removed
            self.used.touch(mode=0o600)

    def last_used(self) -> float:
        """Return when a request was last seen under way, in seconds since the epoch; 0 for never."""
        try:
            return self.used.stat().st_mtime
        except OSError:
            return 0.0

    def read_why(self) -> str:
        """Return the reason that whoever stopped the job gave."""
        try:
            return (self.path / "why").read_text(encoding="utf-8")
        except OSError:
            return ""

    def create(self, spec: JobSpec, key: str) -> None:
        """Make the folder and write what the supervisor needs.

        Raises
        ------
        OSError
            No space, no permission, or a job of this id exists.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.mkdir(mode=0o700)
        self.write("key", key.encode())
        self.write("state.json", _encoder.encode(JobState(since=spec.created)))
        self.write("spec.json", _encoder.encode(spec))  # last: with it the job exists

    def write(self, name: str, content: bytes) -> None:
        """Replace a file as a whole."""
        target = self.path / name
        fresh = self.path / f".{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            with os.fdopen(
                os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            ) as file:
                file.write(content)
            fresh.replace(target)
        except OSError:
            with suppress(OSError):
                fresh.unlink()
            raise

    def append(self, path: Path, content: bytes) -> None:
        """Add to the end of a file."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
            file.write(content)

    def read_spec(self) -> JobSpec:
        """Return what was asked for."""
        return self._read("spec.json", JobSpec)

    def write_spec(self, spec: JobSpec) -> None:
        """Replace what was asked for."""
        self.write("spec.json", _encoder.encode(spec))

    def read_command(self) -> Command:
        """Return what is run."""
        return self._read("command.json", Command)

    def write_command(self, command: Command) -> None:
        """Replace what is run."""
        self.write("command.json", _encoder.encode(command))

    def read_state(self) -> JobState:
        """Return how the job stands."""
        return self._read("state.json", JobState)

    def write_state(self, state: JobState) -> None:
        """Replace how the job stands."""
        self.write("state.json", _encoder.encode(state))

    def add_event(self, event: dict[str, Any]) -> None:
        """Add a line to the history."""
        self.append(self.events, _encoder.encode(event) + b"\n")

    def read_key(self) -> str:
        """Return the key of the service."""
        return (self.path / "key").read_text(encoding="utf-8")

    def _read(self, name: str, kind: type[T]) -> T:
        return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
