"""Weights that lie in a folder: at a path as given, in the roots of `LAZYLLM_MODEL_PATH`, in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lazynb.config import config
from lazynb.hub.checkpoint import Checkpoint, recognise
from lazynb.hub.model import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lazynb.hub.model import Format
    from lazynb.hub.source import Report, Wanted


def is_path(text: str) -> bool:
    """Say whether a name can only mean a path: absolute, `~…`, `./…`, or a GGUF file."""
    return text.startswith(("/", "~", "./", "../")) or text.endswith(".gguf")


class GivenPath:
    """A path as the user gave it, absolute or relative."""

    name = "path"

    def find(self, wanted: Wanted) -> Iterator[Model]:
        """Yield the model at that path, if it is one."""
        path = Path(wanted.text).expanduser()
        found = recognise(path)
        if found:
            path = path.resolve()
            name = path.stem if path.is_file() else path.name
            yield _model(found, wanted, self.name, name)

    def looked(self, wanted: Wanted) -> list[str]:
        """Say which path that is."""
        return [str(Path(wanted.text).expanduser().absolute())]

    def fetch(self, model: Model, report: Report) -> None:
        """Never called: what lies here is present."""


@dataclass(frozen=True)
class Folders:
    """Folders that hold models by their names.

    A model lies there under its short name, its name on a hub or its full id (`Qwen/Qwen2-1.5B`),
    as a folder or as a `.gguf` file; upper and lower case do not matter.
    """

    name: str
    roots: Callable[[], list[Path]]

    def find(self, wanted: Wanted) -> Iterator[Model]:
        """Yield what is there under one of the model's names."""
        names = _names(wanted)
        file = wanted.entry.gguf.file if wanted.entry and wanted.entry.gguf else ""
        for root in self.roots():
            there = listing(root)
            for name in names:
                path = root / name if "/" in name else there.get(name.casefold())
                if path and (found := recognise(path, file)):
                    yield _model(found, wanted, self.name, wanted.name)

    def looked(self, wanted: Wanted) -> list[str]:  # noqa: ARG002
        """Say which folders these are."""
        return [f"{root}{'' if root.is_dir() else ' (does not exist)'}" for root in self.roots()]

    def fetch(self, model: Model, report: Report) -> None:
        """Never called: what lies here is present."""


def folder(name: str, format_: Format) -> Path:
    """Return the folder in the cache for a model."""
    return config.cache_dir / (f"{name}-gguf" if format_ == "gguf" else name)


def listing(root: Path) -> dict[str, Path]:
    """Return what lies in a folder, by its name in lower case; hidden things (downloads) left out."""
    try:
        return {p.name.casefold(): p for p in root.iterdir() if not p.name.startswith(".")}
    except OSError:
        return {}


def _names(wanted: Wanted) -> list[str]:
    """Return the names under which people put a model into a folder."""
    names = [wanted.text, wanted.name]
    if entry := wanted.entry:
        ids = list(entry.hub_ids.values())
        names += [*ids, *(PurePosixPath(id_).name for id_ in ids)]
        names += [entry.gguf.file] if entry.gguf else []
        names += [PurePosixPath(entry.package.weights).name] if entry.package else []
    names += [PurePosixPath(wanted.text).name]
    forms = [form for name in names for form in (name, f"{name}-gguf", f"{name}.gguf")]
    return list(dict.fromkeys(forms))


def _model(found: Checkpoint, wanted: Wanted, source: str, name: str) -> Model:
    kind = wanted.type or (wanted.entry.type if wanted.entry else found.type)
    return Model(
        name=name,
        path=str(found.path.resolve()),
        type=kind,
        format=found.format,
        source=source,
        present=True,
    )
