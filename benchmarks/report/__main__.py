"""The tables of the pages, from the CSVs in statistics/; sentences are written by hand.

    python -m benchmarks.report            # writes them into the pages, between their markers
    python -m benchmarks.report --check    # writes nothing; exit 1 if a page or a CSV would change

Also writes what follows from other files: in statistics/ checkpoints.csv, from the checkpoints'
metadata, bd_rate.csv, from curves, and search.csv, from results with a search and without.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import search
from benchmarks.report.checkpoints import COLUMNS, checkpoints
from benchmarks.report.markdown import fill
from benchmarks.report.tables import TABLES
from evaluation import curves
from evaluation.results import STATISTICS
from evaluation.tables import text
from models.cli import guarded
from models.files import write_text

PAGES = ("README.md", "report.md", "docs/measurements.md")


def texts() -> Iterator[tuple[Path, str]]:
    """What each file should be; the pages read the CSVs before them. DataError, UsageError."""
    yield STATISTICS / "checkpoints.csv", text(checkpoints(), COLUMNS)
    yield STATISTICS / "bd_rate.csv", text(curves.table(STATISTICS))
    yield STATISTICS / "search.csv", text(search.table(STATISTICS))
    for page in map(Path, PAGES):
        yield page, fill(page.read_text("utf-8"), TABLES)


def update(check: bool) -> int:
    """Write what differs; if `check`, only say so and return 1."""
    changed = False
    for path, new in texts():
        if not path.exists() or path.read_text("utf-8") != new:
            changed = True
            print(f"{path} {'is not what the CSVs give: make report' if check else 'was written'}")
            if not check:
                write_text(path, new)
    return int(check and changed)


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m benchmarks.report")
    parser.add_argument("--check", action="store_true", help="only say what would change")
    options = parser.parse_args(arguments)
    return guarded("report", lambda: update(options.check))


if __name__ == "__main__":
    sys.exit(main())
