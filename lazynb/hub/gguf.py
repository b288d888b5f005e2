"""The head of a GGUF file: what llama.cpp's format says about a model before its vocabulary.

Only the first few hundred bytes are read, so a name can be resolved in a millisecond however large
the file is.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"GGUF"
# The types of the metadata, as `struct` writes them.
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9
LONGEST = 1 << 20
"""Bytes of the longest string and items of the longest list that are believed."""


def is_gguf(path: Path) -> bool:
    """Say whether a file begins as a GGUF file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def metadata(path: Path) -> dict[str, Any]:
    """Read the metadata up to the vocabulary, without the architecture's name before the keys.

    Returns
    -------
    dict
        For example `{"architecture": "llama", "block_count": 30, …}`; what was read until then when
        the file is broken. llama.cpp says better what is wrong with it.
    """
    facts: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            magic, _version, _tensors, count = struct.unpack("<4sIQQ", file.read(24))
            for _ in range(count if magic == MAGIC else 0):
                key = _text(file)
                if key.startswith("tokenizer."):
                    break
                facts[key] = _value(file, _number(file, "I"))
    except (OSError, struct.error, KeyError, ValueError):
        pass
    kind = facts.get("general.architecture", "")
    return {key.removeprefix("general.").removeprefix(f"{kind}."): v for key, v in facts.items()}


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _text(file)
    if kind == ARRAY:
        item, count = _number(file, "I"), _number(file, "Q")
        if count > LONGEST:
            raise ValueError("no list is that long")
        return [_value(file, item) for _ in range(count)]
    return _number(file, NUMBERS[kind])


def _text(file: BinaryIO) -> str:
    size = _number(file, "Q")
    if size > LONGEST:
        raise ValueError("no string is that long")
    return file.read(size).decode()


def _number(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]
