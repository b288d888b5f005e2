"""What is on this machine: the models of the cache and of the user's own folders, and room made in the cache."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from lazynb.config import config
from lazynb.errors import LazynbError, ModelNotFoundError
from lazynb.hub import catalogue
from lazynb.hub.checkpoint import recognise
from lazynb.hub.folders import listing
from lazynb.hub.model import Format, ModelType
from lazynb.hub.transfer import MANIFEST, Manifest

REST = ".part"
"""The end of the name of a folder with a download that is not whole."""


class Stored(msgspec.Struct, frozen=True):
    """A model on this machine, or the beginning of one."""

    name: str
    folder: str
    """What is removed with it: the folder, or the GGUF file."""
    bytes: int
    type: ModelType | None
    """None: it is not whole."""
    format: Format | None
    cached: bool
    """Whether it lies in the cache, where lazynb may remove it."""
    origin: str = ""
    """The hub, the id and the revision, where they are known."""


def stored() -> list[Stored]:
    """Return the models on this machine, by name."""
    found = [*_in(config.cache_dir, cached=True)]
    for root in config.model_roots:
        found += _in(root, cached=False)
    return sorted(found, key=lambda model: model.name.casefold())


def remove(name: str) -> int:
    """Remove a model from the cache, with what is there of a download; return the bytes that are free again.

    Raises
    ------
    ModelNotFoundError
        It is not on this machine.
    LazynbError
        It lies in a folder of the user's.
    """
    same = [model for model in stored() if model.name.casefold() == name.casefold()]
    mine = [model for model in same if model.cached]
    if not mine and same:
        hint = "lazynb removes only what it downloaded."
        raise LazynbError(f"{name} lies in a folder of yours: {same[0].folder}", hint=hint)
    if not mine:
        there = ", ".join(model.name for model in stored() if model.cached)
        raise ModelNotFoundError(
            f"{name} is not in the cache", hint=f"There is: {there or 'nothing'}."
        )
    for model in mine:
        path = Path(model.folder)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        with suppress(OSError):  # the owner's folder, once nothing is left in it
            if path.parent != config.cache_dir:
                path.parent.rmdir()
    return sum(model.bytes for model in mine)


def _in(root: Path, *, cached: bool) -> list[Stored]:
    found = []
    for path in _entries(root):
        model = recognise(path)
        if model:
            found.append(_stored(path, root, cached=cached))
        elif path.is_dir():  # of an owner: `Qwen/Qwen3-0.6B`
            found += [
                _stored(inner, root, cached=cached)
                for inner in _entries(path)
                if inner.name.endswith(REST) or recognise(inner)
            ]
    return found


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):
        rests = [path for path in folder.iterdir() if path.name.endswith(REST)]
        return [*listing(folder).values(), *rests]
    return []


def _stored(path: Path, root: Path, *, cached: bool) -> Stored:
    model = None if path.name.endswith(REST) else recognise(path)
    where = path.relative_to(root)
    name = path.name.removeprefix(".").removesuffix(REST) if model is None else path.name
    name = name.removesuffix(".gguf")
    if len(where.parts) == 1:
        entry = catalogue.find(name) or catalogue.find(name.removesuffix("-gguf"))
        name = entry.name if entry else name
    else:
        name = str(where.with_name(name))
    return Stored(
        name=name,
        folder=str(path),
        bytes=model.size
        if model
        else sum(f.stat().st_size for f in path.rglob("*") if f.is_file()),
        type=(known.type if (known := catalogue.find(name)) else model.type) if model else None,
        format=model.format if model else None,
        cached=cached,
        origin=_origin(path),
    )


def _origin(path: Path) -> str:
    try:
        said = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return ""
    return f"{said.source}: {said.repo}@{said.revision[:12]}"
