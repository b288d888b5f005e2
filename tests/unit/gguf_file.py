"""GGUF files for tests: a head and nothing behind it."""

from __future__ import annotations

import struct
from pathlib import Path  # noqa: TC003


def gguf(path: Path, **facts: object) -> Path:
    """Write a GGUF file with nothing but a head."""
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(facts))
    for key, value in facts.items():
        name = key.replace("__", ".").encode()
        data += struct.pack("<Q", len(name)) + name
        if isinstance(value, str):
            data += struct.pack("<IQ", 8, len(value)) + value.encode()
        else:
            data += struct.pack("<II", 4, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
