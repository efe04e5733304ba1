"""CSVs in, Markdown out: what an entry of `benchmarks.report.tables` means."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from string import Formatter

import pandas as pd

from evaluation.metrics import ms_ssim_db
from evaluation.results import STATISTICS
from models.errors import DataError
from models.presets import OPERATING_POINTS, short

MARKERS = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)
POINT = ["model", "lmbda"]


def three(value: float) -> str:
    """Three significant digits: 0.500, 30.0, 1,420."""
    value = float(f"{value:.3g}")
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


FORMATS: dict[str, Callable] = {
    "three": three,
    "giga": lambda value: three(value / 1e9),
    "decibel": lambda value: f"{ms_ssim_db(value):.2f}",
    # "Factorized (original study)" keeps its end, "paper-mbt2018" is "mbt2018"
    "short": lambda text: re.sub(r"^\w+", lambda name: short(name[0]), text.removeprefix("paper-")),
}


class Cells(Formatter):
    """Python's formats and those of `FORMATS`."""

    def format_field(self, value: object, form: str) -> str:
        return FORMATS[form](value) if form in FORMATS else format(value, form)

    def cell(self, template: str, row: dict) -> str:
        """A template filled from a row; a dash where a value is missing."""
        values = [row[name] for name in re.findall(r"{([^:}]+)", template)]
        return "-" if any(map(pd.isna, values)) else self.vformat(template, (), row)


@dataclass(frozen=True)
class Table:
    """A table of a page.

    `csvs`: names as `read` takes them. Several are joined by the columns `on`; what two of them
    call alike is the first one's, and the second one's with "_2".
    `columns`: (header, template) pairs; "{bpp:three}" is column bpp with three digits.
    `where`: which rows, as pandas' `query`. `beside`: a column and two of its values; rows that
    have the second, "_2" to each of their columns, stand beside those with the first.
    `computed`: further columns, as pandas' `eval`. `rows`: makes the frame where joining does not.
    `words`: how many columns, from the left, are text; the others are numbers, set right.
    """

    csvs: str
    columns: list[tuple[str, str]]
    where: str = ""
    on: list[str] = field(default_factory=lambda: POINT)
    beside: tuple | None = None
    computed: dict[str, str] = field(default_factory=dict)
    rows: Callable[..., pd.DataFrame] | None = None
    words: int = 1

    def frame(self) -> pd.DataFrame:
        """The rows that the templates are filled from."""
        frames = [read(name) for name in self.csvs.split()]
        frame = self.rows(*frames) if self.rows else reduce(self.join, frames)
        frame = frame.query(self.where) if self.where else frame
        if self.beside:
            name, *values = self.beside
            frame = self.join(*(frame[frame[name] == value] for value in values))
        return frame.assign(**{k: frame.eval(text) for k, text in self.computed.items()})

    def join(self, left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
        """Every row of the left one, with that of the right one if there is one."""
        return left.merge(right, "left", self.on, suffixes=("", "_2"))

    def markdown(self) -> str:
        """The table. DataError, in a sentence, for a CSV or a column that is missing."""
        try:
            rows = self.frame().to_dict("records")
            body = [[Cells().cell(form, row) for _, form in self.columns] for row in rows]
        except DataError:
            raise
        except (KeyError, NameError, ValueError) as error:  # no column, none in a query, no number
            raise DataError(f"The table of {self.csvs} in {STATISTICS}: {error!r}.") from error
        rule = ["---"] * self.words + ["---:"] * (len(self.columns) - self.words)
        lines = [[header for header, _ in self.columns], rule, *body]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def read(name: str) -> pd.DataFrame:
    """The rows of the CSVs that a name stands for. DataError if one is missing.

    "search" is statistics/search.csv; "per_image/{model}" has one for each model, which becomes a
    column, and "training/{model}_lmbda_{lmbda}" one for each operating point.
    """
    points = [{"model": p.model, "lmbda": p.lmbda} for p in OPERATING_POINTS]
    keys = re.findall(r"{(\w+)}", name)
    paths = {STATISTICS / f"{name.format(**p)}.csv": {key: p[key] for key in keys} for p in points}
    try:
        return pd.concat([pd.read_csv(path).assign(**own) for path, own in paths.items()])
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} does not exist.") from None


def fill(text: str, tables: dict[str, Table]) -> str:
    """A page with the table NAME from each `<!-- NAME:begin -->` to `<!-- NAME:end -->`.

    DataError for a marker without a table.
    """
    unknown = [match[2] for match in MARKERS.finditer(text) if match[2] not in tables]
    if unknown:
        raise DataError(f"Markers without a table in benchmarks.report.tables: {unknown}.")
    return MARKERS.sub(lambda match: f"{match[1]}{tables[match[2]].markdown()}{match[3]}", text)
