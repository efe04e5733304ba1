"""BD-rates of the study's curves: against the original, against CompressAI, among themselves.

    python -m benchmarks.bd_rate [--resultdir statistics] [--out statistics/bd_rate.csv]

Reads <resultdir>/<Model>.csv as `test.py` writes it and the published points in
<resultdir>/reference/, and writes one row for each comparison. A comparison whose numbers are
missing, or whose curves do not overlap, keeps its row with an empty value and the reason.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evaluation.curves import COLUMNS, table
from models.cli import guarded
from models.errors import DataError
from models.files import csv_text, write_text


def run(folder: Path, out: Path | None) -> int:
    """Write the table and print it; raises what `guarded` turns into a line."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; pass one by --resultdir.")
    out = out or folder / "bd_rate.csv"
    rows = table(folder)
    write_text(out, csv_text(rows, COLUMNS))
    for row in rows:
        value = f"{float(row['bd_rate_percent']):+.2f} %" if row["bd_rate_percent"] else "-"
        print(
            f"{row['curve']:38} {row['against']:56} {row['metric']:8} {value:>10}  {row['reason']}"
        )
    print(f"Wrote {out}.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bd_rate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--resultdir",
        type=Path,
        default=Path("statistics"),
        help="folder of <Model>.csv and reference/ (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, help="default: bd_rate.csv in the result folder")
    options = parser.parse_args(arguments)
    return guarded("bd_rate", lambda: run(options.resultdir, options.out))


if __name__ == "__main__":
    sys.exit(main())
