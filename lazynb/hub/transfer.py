"""Bringing a repository's files to this machine: several at a time, with progress, checked, published at once.

Everything lands in a hidden folder beside the final one, which only gets its name when every file is whole: what is
there under a model's name is the model. What a cut or a kill leaves in the hidden folder is the beginning of the
next attempt.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from lazynb.errors import LazynbError
from lazynb.hub.selection import RemoteFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lazynb.hub.source import Report

WORKERS = 4
PERIOD = 0.25  # seconds between two looks at how far it is
MARGIN = 50_000_000
"""Bytes that stay free."""
MANIFEST = ".lazynb.json"

Failure = Literal["missing", "denied", "network", "busy", "server", "checksum", "offline"]


class Listing(msgspec.Struct, frozen=True):
    """What is in a repository."""

    revision: str
    """The commit where the hub tells it, else the branch."""
    files: list[RemoteFile]


class Manifest(msgspec.Struct, frozen=True):
    """Where a downloaded model came from; beside its weights."""

    source: str
    repo: str
    revision: str
    files: list[RemoteFile]


class Client(Protocol):
    """A hub's client: one module."""

    @property
    def name(self) -> str:
        """The value of `LAZYLLM_MODEL_SOURCE`."""

    @property
    def title(self) -> str:
        """What people call it."""

    @property
    def token(self) -> str:
        """What to do where it asks who you are."""

    @property
    def endpoint(self) -> str:
        """The variable that names another address of it."""

    def url(self, repo: str) -> str:
        """Return the page of a repository."""

    def listing(self, repo: str, revision: str) -> Listing:
        """Ask which files a repository has."""

    def download(self, repo: str, revision: str, file: RemoteFile, folder: Path) -> None:
        """Bring one file."""

    def explain(self, error: Exception) -> Failure | None:
        """Say what an error means."""


def partial(folder: Path, file: RemoteFile) -> Path:
    """Return where the beginning of a file lies while it comes."""
    return folder / f"{file.path}.incomplete"


def check_space(files: Sequence[RemoteFile], folder: Path) -> None:
    """Refuse to begin what cannot end.

    Raises
    ------
    LazynbError
        How much is needed, and how much there is.
    """
    needed = sum(file.size for file in files) - sum(_there(folder, file) for file in files) + MARGIN
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LazynbError(
            f"{needed / 1e9:.2f} GB are needed in {folder.parent}, where {free / 1e9:.2f} GB are free",
            hint="Make room (%lazyllm models, %lazyllm rm NAME), or set LAZYLLM_MODEL_CACHE_DIR to a folder on "
            "another disk.",
        )


@dataclass(frozen=True)
class Transfer:
    """Files on their way into a folder; those that are there already are left as they are."""

    client: Client
    repo: str
    revision: str
    files: Sequence[RemoteFile]
    folder: Path
    report: Report

    def run(self) -> None:
        """Bring them all, or raise what went wrong with the first that cannot be had.

        The threads are daemons: when one file cannot be had, nobody waits for the end of the others.
        """
        left: SimpleQueue[RemoteFile] = SimpleQueue()
        for file in self.files:
            left.put(file)
        ended: SimpleQueue[Exception | None] = SimpleQueue()
        over = threading.Event()
        for _ in range(min(WORKERS, len(self.files))):
            arguments = (left, ended, over)
            threading.Thread(
                target=self._work, args=arguments, name="lazynb-download", daemon=True
            ).start()
        try:
            self._wait(ended)
        finally:
            over.set()

    def _wait(self, ended: SimpleQueue[Exception | None]) -> None:
        whole = 0
        begin, already = time.monotonic(), sum(_there(self.folder, file) for file in self.files)
        while whole < len(self.files):
            self._tell(time.monotonic() - begin, already)
            with suppress(Empty):
                if error := ended.get(timeout=PERIOD):
                    raise error
                whole += 1
        self._tell(time.monotonic() - begin, already)

    def _work(
        self,
        left: SimpleQueue[RemoteFile],
        ended: SimpleQueue[Exception | None],
        over: threading.Event,
    ) -> None:
        while not over.is_set():
            try:
                self._bring(left.get_nowait())
            except Empty:
                return
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                ended.put(error)
            else:
                ended.put(None)

    def _bring(self, file: RemoteFile) -> None:
        """Bring one file; one that came damaged is brought once more."""
        path = self.folder / file.path
        for _ in range(2):
            if not (path.is_file() and path.stat().st_size == file.size):
                self.client.download(self.repo, self.revision, file, self.folder)
            if not file.sha256 or _sum(path) == file.sha256:
                return
            path.unlink()
        raise ChecksumError(file.path)

    def _tell(self, seconds: float, already: int) -> None:
        """Tell how many files are whole, how far the others are, the bytes, and how fast they come.

        What lies on the disk says it: the same for every client, and right after a cut.
        """
        whole, done, coming = 0, 0, []
        for file in self.files:
            size = _there(self.folder, file)
            done += size
            if (self.folder / file.path).is_file():
                whole += 1
            elif size:
                coming.append(f"{file.path} {size / file.size:.0%}")
        total = sum(file.size for file in self.files)
        rate = (done - already) / seconds if seconds >= 1 else 0.0
        text = [
            f"{whole} of {len(self.files)} files",
            f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB",
        ]
        if rate and done < total:
            text.append(f"{rate / 1e6:.1f} MB/s, {clock((total - done) / rate)} left")
        self.report(" · ".join([*text, *coming]), done, total)


def clock(seconds: float) -> str:
    """Return a duration as people write it: 45 s, 12:05, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def publish(folder: Path, target: Path, manifest: Manifest) -> None:
    """Give a folder whose files are all there its name."""
    wanted = {folder / file.path for file in manifest.files}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir() and path not in wanted:  # of an older revision, or the client's own
            path.unlink()
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    shutil.rmtree(target, ignore_errors=True)  # it is no model, or we would not be here
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.replace(target)


class ChecksumError(Exception):
    """A file came whole, and is not the one that the hub's list names."""


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _there(folder: Path, file: RemoteFile) -> int:
    for path in (folder / file.path, partial(folder, file)):
        try:
            return min(path.stat().st_size, file.size)
        except OSError:
            continue
    return 0
