"""What the modules of the report's tables share: CSVs in, Markdown out."""

from __future__ import annotations

import json

from benchmarks.records import number
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


def fixed(text: str | float | None, digits: int) -> str:
    """A number of a CSV with so many decimals; a dash where there is none."""
    return "-" if text in (None, "") else f"{float(text):.{digits}f}"


def three(text: str | float | None) -> str:
    """A number of a CSV with three significant digits; a dash where there is none."""
    if text in (None, ""):
        return "-"
    value = float(text)
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    missing = 3 - len(number(abs(value), 3).replace(".", "").lstrip("0"))
    shown = number(value, 3)
    return shown + ("." if "." not in shown else "") + "0" * missing if missing > 0 else shown


def percent(value: float) -> str:
    """A difference in percent, with its sign."""
    return f"{value:+.1f} %"


def span(values: list[float], form: str = ".3g", unit: str = "") -> str:
    """'least to most' of the values, or the one that they are."""
    ends = dict.fromkeys(f"{end:{form}}" for end in (min(values), max(values)))
    return " to ".join(ends) + unit


def hardware(text: str) -> str:
    """What a checkpoint says of its machine, in good English."""
    return text.replace(", 1 threads", ", 1 thread")


def machine(name: str) -> str:
    """The machine that statistics/<name>.csv was measured on: processor, threads, torch."""
    path = STATISTICS / "machine.json"
    told = json.loads(path.read_text("utf-8")) if path.exists() else {}
    parts = told.get(f"{name}.csv", "a machine that is not recorded").split("; ")
    kept = [p for p in parts if p.endswith("threads") or p.startswith(("torch", "NVIDIA"))]
    return ", ".join([parts[0], *kept]).replace(" 1 threads", " 1 thread")
