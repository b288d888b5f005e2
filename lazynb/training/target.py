"""Where fine-tuned weights lie: one folder for a target, one folder in it for each run.

`<train_target_root>/<target_path>/<run>/version.json` is the manifest of a finished run, written last. A folder that
holds weights itself, put there by hand, is a target as well.
"""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lazynb.config import config
from lazynb.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = "version.json"
SELECTED = "selected"


class Version(msgspec.Struct, kw_only=True):
    """A finished fine-tuning run, as its manifest says it."""

    id: str
    """When it began, and a few letters."""
    base: str
    """The model that it started from."""
    method: str
    """The trainer."""
    options: dict[str, Any] = {}
    rows: int = 0
    """Examples that it learned from."""
    created: float = 0.0
    """Seconds since the epoch."""
    seconds: float = 0.0
    """How long it took."""
    metrics: dict[str, float] = {}
    weights: str = ""
    """The servable weights, relative to the run's folder."""
    adapter: str = ""
    """The adapter, likewise."""
    full: str = ""
    """The same weights for transformers and vLLM, likewise, where the servable ones are a GGUF file."""
    folder: str = ""

    @property
    def path(self) -> Path:
        """Where its weights are."""
        return Path(self.folder) / self.weights


class Target:
    """The place that a module's fine-tuned weights go to and come from.

    Parameters
    ----------
    path : str or Path
        Under `config.train_target_root` unless absolute.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = Path(path).name
        self.path = (Path(config.train_target_root).expanduser() / path).absolute()

    def versions(self) -> list[Version]:
        """Return the finished runs, the latest last."""
        return sorted(_versions(self.path), key=lambda version: version.created)

    @property
    def current(self) -> Version | None:
        """The version that is served: the selected one, else the latest."""
        versions = self.versions()
        try:
            chosen = (self.path / SELECTED).read_text(encoding="utf-8").strip()
        except OSError:
            chosen = ""
        newest = versions[-1] if versions else None
        return next((version for version in versions if version.id == chosen), newest)

    def select(self, version: str | None) -> None:
        """Serve a certain version from now on; None serves the latest.

        Raises
        ------
        OptionError
            There is no such version.
        """
        names = [each.id for each in self.versions()]
        if version is None:
            (self.path / SELECTED).unlink(missing_ok=True)
            return
        if version not in names:
            have = f"There are: {', '.join(names)}." if names else "There is none yet."
            raise OptionError(f"{self.name} has no version {version!r}", hint=have)
        (self.path / SELECTED).write_text(version, encoding="utf-8")

    def weights(self, form: str = "") -> Path | None:
        """Return the weights to serve: the current version's, or what was put here by hand.

        Parameters
        ----------
        form : str
            The form that the engine reads best, 'gguf' or 'safetensors', where that is known.
        """
        from lazynb.hub.checkpoint import recognise

        if (version := self.current) is not None and version.path.exists():
            full = Path(version.folder, version.full)
            return (
                full if form == "safetensors" and version.full and full.exists() else version.path
            )
        return self.path if recognise(self.path) else None

    def new_run(self) -> Path:
        """Make the folder of a new run."""
        folder = self.path / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise OptionError(
                f"{folder} cannot be made: {error.strerror}",
                hint="Set another target_path, or LAZYLLM_TRAIN_TARGET_ROOT.",
            ) from None
        return folder


def _versions(folder: Path) -> Iterator[Version]:
    for manifest in folder.glob(f"*/{MANIFEST}"):
        try:
            version = msgspec.convert(json.loads(manifest.read_bytes()), Version, strict=False)
        except (OSError, ValueError):
            continue
        version.folder = str(manifest.parent)
        yield version
