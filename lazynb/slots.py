"""Slots: `{name}` in a text, filled once.

Braces around anything but a name are no slot, nor are doubled ones (`{{name}}`): they stay as they
are, byte for byte. A value that is put in is never looked at again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lazynb.errors import LazynbError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SLOT = re.compile(r"(?<!\{)\{([^\W\d]\w*)\}|\{([^\W\d]\w*)\}(?!\})")  # not doubled on both sides


def slots(*texts: str) -> list[str]:
    """Return the names of the slots of some texts, each once, in their order."""
    found = (match[1] or match[2] for text in texts for match in _SLOT.finditer(text))
    return list(dict.fromkeys(found))


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put the values into the slots of a text."""
    return _SLOT.sub(lambda match: values[match[1] or match[2]], text)


def check(needed: Sequence[str], values: Mapping[str, Any], *, also: Sequence[str] = ()) -> None:
    """Raise a LazynbError that names the slots without a value; `also`: other keys of a call."""
    missing = [slot for slot in needed if slot not in values]
    if not missing:
        return
    first, keys = missing[0], ", ".join(repr(key) for key in values) or "none"
    raise LazynbError(
        f"No value for {braced(missing)} in the prompt",
        hint=f"Keys given: {keys}. Call with a dict: {example([*needed, *also])}. "
        f"Text in braces that is no slot: dict({first}='{{{first}}}', …) sends it as it is.",
    )


def braced(names: Iterable[str]) -> str:
    """Return the slots as they are written, for a message."""
    return ", ".join(f"{{{name}}}" for name in names)


def example(names: Iterable[str]) -> str:
    """Return a dict that fills the slots, for a hint."""
    return f"dict({', '.join(f'{name}=…' for name in names)})"
