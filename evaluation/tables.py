"""Tables: CSV files in UTF-8, read and written here alone. A row is a dict of its columns.

rows = read(path, {"model": str, "bpp": number, "ms_ssim": number_or_nan})
write(path, rows)
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import DataError
from models.files import printable, write_text

Row = dict[str, Any]
Kind = Callable[[str], Any]  # makes a value of a cell's text; ValueError if it cannot


def number(text: str) -> float:
    """A finite number; ValueError for any other text."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def number_or_nan(text: str) -> float:
    """A finite number, or nan for an empty cell: a value that nobody has."""
    return number(text) if text else math.nan


def read(path: Path, columns: Mapping[str, Kind] | Iterable[str] = ()) -> list[Row]:
    """The rows of a CSV file.

    columns: those that there must be, as text, or each with its kind: `str`, `int`, `number`,
    `number_or_nan` or a function of yours. Others that the file has come along as text.
    DataError that says what is wrong and where: no file, no such column, a line that is too
    long or too short, a cell that is not of its kind.
    """
    kinds = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, str)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in kinds if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}.")
            return [_parsed(row, kinds, f"{path}, line {reader.line_num}") for row in reader]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}.") from error


def _parsed(row: Row, kinds: Mapping[str, Kind], place: str) -> Row:
    if None in row or None in row.values():  # csv's own marks of a wrong length
        raise DataError(f"{place}, has not as many cells as there are columns.")
    for column, kind in kinds.items():
        try:
            row[column] = kind(row[column])
        except ValueError:
            meant = "a whole number" if kind is int else "a number"
            raise DataError(f"{place}, column {column}: {row[column]!r} is not {meant}.") from None
    return row


def text(rows: Sequence[Mapping[str, Any]], columns: Iterable[str] | None = None) -> str:
    """Rows as the text of a CSV file with Unix line ends, which `read` reads again.

    columns: in this order; None for those of the first row. ValueError for a row with others.
    nan becomes an empty cell; names that a terminal or CSV stumbles over become `printable`.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns or rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in row.items()} for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return ""
    return printable(value) if isinstance(value, str) else value


def write(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str] | None = None
) -> None:
    """Write rows to a CSV file, atomically; see `text`."""
    write_text(path, text(rows, columns))


def aligned(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows, all of the same columns, as lines of text for a reader, without a last line end."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in lines)
