"""Tables of the README and the report, generated from the CSVs between markers.

    python -m benchmarks.report            # rewrite the blocks in place
    python -m benchmarks.report --check    # exit 1 if a file differs, write nothing

A file holds lines `<!-- NAME:begin -->` and `<!-- NAME:end -->`; what stands between them is
replaced by the block NAME of `pages.TABLES`. Before the tables are made,
statistics/checkpoints.csv and training_runs.csv are written from the metadata of the checkpoints.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.report.checkpoints import (
    CHECKPOINT_COLUMNS,
    RUN_COLUMNS,
    checkpoints,
    training_runs,
)
from benchmarks.report.pages import filled
from benchmarks.report.tables import STATISTICS
from models.files import csv_text, write_text


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="only say which files would change")
    options = parser.parse_args(arguments)
    made = {
        STATISTICS / "checkpoints.csv": csv_text(checkpoints(), CHECKPOINT_COLUMNS),
        STATISTICS / "training_runs.csv": csv_text(training_runs(), RUN_COLUMNS),
    }
    if not options.check:  # the tables read them
        for path, text in made.items():
            write_text(path, text)
    made |= filled()
    changed = [p for p, text in made.items() if not p.exists() or p.read_text("utf-8") != text]
    for path in changed:
        print(f"{path} {'differs from' if options.check else 'was made anew from'} the CSVs")
        if not options.check:
            write_text(path, made[path])
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
