"""BD-rates of the study's curves: against the original, against CompressAI, among themselves.

Reads <resultdir>/<Model>.csv as `test.py` writes it and the published points in
<resultdir>/reference/, and writes bd_rate.csv, one row for each comparison. A comparison of
curves that do not overlap keeps its row with an empty value and the reason.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.records import print_table, write_csv
from evaluation.curves import table
from evaluation.results import STATISTICS


def configure(parser: argparse.ArgumentParser) -> None:
    help = "folder of <Model>.csv and reference/ (default: %(default)s)"
    parser.add_argument("--resultdir", type=Path, default=STATISTICS, metavar="DIR", help=help)


def run(options: argparse.Namespace) -> int:
    """Write the table and print it. DataError for a file that is missing or damaged."""
    rows = table(options.resultdir)
    print_table(rows)
    write_csv(options.outdir / "bd_rate.csv", rows)
    return 0
