"""Rows of a data file, each with its place in the file, so that an error can name the line."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

from lazynb.errors import LazynbError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Located = tuple[str, Any]


def read_file(path: Path) -> Iterator[Located]:
    """Yield the rows of a file, or of all files in a folder, with their places.

    Raises
    ------
    OptionError
        It is not there, not of a known format, not UTF-8 or broken: with the line.
    """
    if path.is_dir():
        for part in sorted(p for p in path.iterdir() if p.suffix in FORMATS):
            yield from ((f"{part.name}, {place}", row) for place, row in read_file(part))
        return
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*") if p.suffix in FORMATS]
        hint = f"There is: {', '.join(near[:5])}." if near else "Check the path."
        raise OptionError(f"There is no file {path}", hint=hint)
    if path.suffix and path.suffix not in FORMATS:
        raise OptionError(
            f"{path} has no known format", hint=f"Known are {', '.join(sorted(FORMATS))}."
        )
    try:
        yield from FORMATS.get(path.suffix, _json)(path)
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not UTF-8 text: {error}", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None


def _json(path: Path) -> Iterator[Located]:
    """Read a JSON array row by row: the parser of the whole would forget where each one stood."""
    text = path.read_text(encoding="utf-8-sig")
    decoder, at, line, counted = json.JSONDecoder(), 0, 1, 0

    def skip(at: int, characters: str = " \t\r\n") -> int:
        while at < len(text) and text[at] in characters:
            at += 1
        return at

    at = skip(at)
    if text[at : at + 1] != "[":
        yield from _jsonl(path)
        return
    at = skip(at + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            row, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise OptionError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from None
        yield f"line {line}", row
        at = skip(at)
        if text[at : at + 1] not in {",", "]"}:
            line += text.count("\n", counted, at)
            raise OptionError(f"{path}, line {line}: a comma or the closing ] is missing")
        at = skip(at + 1) if text[at] == "," else at


def _jsonl(path: Path) -> Iterator[Located]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                hint = "A .json file holds one array of rows, a .jsonl file a row on each line."
                raise OptionError(
                    f"{path}, line {number}: no JSON ({error.msg})", hint=hint
                ) from None


def _csv(path: Path) -> Iterator[Located]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        for row in reader:
            if None in row or None in row.values():
                raise OptionError(
                    f"{path}, line {reader.line_num}: it has more or fewer fields than the header",
                    hint="Quote a field that holds a comma.",
                )
            yield f"line {reader.line_num}", row


def _parquet(path: Path) -> Iterator[Located]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise LazynbError(
            f"Reading {path} takes pyarrow", hint="Install it: %pip install pyarrow"
        ) from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise OptionError(f"{path} is no Parquet file: {error}") from None
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))


FORMATS: dict[str, Callable[[Path], Iterator[Located]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
