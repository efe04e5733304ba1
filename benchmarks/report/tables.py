"""What the modules of the report's tables share: CSVs in, Markdown out."""

from __future__ import annotations

from evaluation.curves import read_rows
from evaluation.results import STATISTICS


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of statistics/<name>.csv; none if the file does not exist."""
    path = STATISTICS / f"{name}.csv"
    return read_rows(path) if path.exists() else []


def markdown(header: list[str], rows: list[list[str]], text_columns: int = 1) -> str:
    """A Markdown table; the first columns are text, the others are numbers, set right."""
    rule = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    return "".join(f"| {' | '.join(line)} |\n" for line in [header, rule, *rows])


def fixed(text: str | None, digits: int) -> str:
    """A number of a CSV with so many decimals; a dash where there is none."""
    return f"{float(text):.{digits}f}" if text else "-"
