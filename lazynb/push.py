"""A module's chunks on their way to the `StreamCallHelper` around the call, dressed as `stream=` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING

from lazynb.errors import OptionError
from lazynb.session import check_color, current_sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynb.streaming import Kind

LOOKS = ("color", "prefix", "prefix_color", "suffix", "suffix_color")


def check_looks(stream: bool | Mapping[str, str]) -> bool | Mapping[str, str]:
    """Return a stream setting, or raise an OptionError for what it does not have."""
    if isinstance(stream, Mapping):
        for name, value in stream.items():
            if name not in LOOKS:
                near = get_close_matches(name, LOOKS, n=3) or LOOKS
                raise OptionError(
                    f"A stream has no {name!r}", hint=f"Did you mean: {', '.join(near)}?"
                )
            if name.endswith("color"):
                check_color(value)
    return stream


@contextmanager
def pushing(
    stream: bool | Mapping[str, str], source: str
) -> Iterator[Callable[[Kind, str], None] | None]:
    """Give the function that takes the chunks of a call, or None when nobody listens to this module."""
    sink = current_sink()
    if sink is None or stream is False:
        yield None
        return
    looks = stream if isinstance(stream, Mapping) else {}
    color = looks.get("color", "")

    def push(kind: Kind, chunk: str) -> None:
        sink.push(chunk, kind=kind, source=source, color=color if kind == "text" else "")

    sink.push(
        looks.get("prefix", ""), kind="prefix", source=source, color=looks.get("prefix_color", "")
    )
    yield push
    sink.push(
        looks.get("suffix", ""), kind="suffix", source=source, color=looks.get("suffix_color", "")
    )
