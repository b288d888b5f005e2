"""Training data: read from whatever a user has, recognised, checked, and brought into one form.

The form of chat data is the messages of the OpenAI API, which every trainer here takes; alpaca and sharegpt rows are
turned into it. A row that is wrong is named by its place in the file before anything starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lazynb.errors import OptionError
from lazynb.training.files import FORMATS, read_file
from lazynb.training.rows import CHECKS, Wrong, recognise

if TYPE_CHECKING:
    from collections.abc import Iterable

Shape = Literal["messages", "preference", "feedback", "text", "retrieval"]
SHOWN = 3  # wrong rows that an error shows


class DataError(OptionError):
    """Training data that cannot be used: the first wrong rows with their places, and what is expected."""


@dataclass(frozen=True)
class Dataset:
    """Training data in the form that trainers take.

    Parameters
    ----------
    rows : list of dict
        `messages` (with `chosen` and `rejected`, or `label`), `text`, or `query`, `pos` and `neg`.
    shape : str
        'messages', 'preference', 'feedback', 'text' (pre-training) or 'retrieval'.
    origin : str
        Where it came from.
    """

    rows: list[dict[str, Any]] = field(repr=False)
    shape: Shape
    origin: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def characters(self) -> int:
        """The size of the text in it."""
        return sum(_size(row) for row in self.rows)


def read(data: Any) -> Dataset:
    """Read and check training data.

    Parameters
    ----------
    data : str, Path, list of dict, pandas.DataFrame or datasets.Dataset
        A .json, .jsonl, .csv, .tsv or .parquet file, or rows: alpaca (`instruction`, `input`, `output`), sharegpt
        (`conversations`), OpenAI `messages`, preferences (`chosen`, `rejected`), feedback (`label`), plain `text`,
        or retrieval triples (`query`, `pos`, `neg`).

    Raises
    ------
    DataError
        Names the first wrong rows and their lines.
    """
    if isinstance(data, (str, Path)):
        origin, located = str(data), list(read_file(Path(data).expanduser()))
    else:
        origin, located = type(data).__name__, list(_given(data))
    if not located:
        raise DataError(f"{origin} holds no rows", hint="A row is an example to learn from.")
    shape = recognise([row for _, row in located[:SHOWN]])
    if shape is None:
        place, row = located[0]
        keys = ", ".join(map(repr, row)) if isinstance(row, dict) else type(row).__name__
        raise DataError(
            f"{origin}, {place}: no known form of training data ({keys})",
            hint="Known are alpaca (instruction, output), sharegpt (conversations), messages, chosen/rejected, text, query/pos.",
        )
    return Dataset(_checked(located, shape, origin), shape, origin)


def _checked(located: list[tuple[str, Any]], shape: Shape, origin: str) -> list[dict[str, Any]]:
    rows, wrong = [], []
    for place, row in located:
        try:
            rows.append(CHECKS[shape](row))
        except Wrong as error:
            wrong.append(f"{place}: {error}")
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise DataError(
            f"{origin}: {len(wrong)} of {len(located)} rows cannot be used. {'; '.join(wrong[:SHOWN])}{more}",
            hint="Mend or drop these rows.",
        )
    return rows


def _given(data: Any) -> Iterable[tuple[str, Any]]:
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas
        data = data.to_dict("records")
    if isinstance(data, dict) or not hasattr(data, "__iter__"):
        raise DataError(
            f"{type(data).__name__} is no training data",
            hint=f"Give a list of dicts, a DataFrame, a dataset or a file ({', '.join(FORMATS)}).",
        )
    return ((f"row {number}", row) for number, row in enumerate(data, 1))


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_size(item) for item in value.values())
    return sum(_size(item) for item in value) if isinstance(value, list) else 0
