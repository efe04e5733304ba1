"""The command of the package: the trained models against damaged files."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from evaluation import tables
from models import checkpoint
from models.cli import Progress
from tests.fuzz.cases import fuzz
from tests.helpers import NAMES


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Decode damaged files, and say which break out."
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the counts as a CSV")
    flags = parser.parse_args(arguments)
    trained = [checkpoint.load(checkpoint.find(name)[0]) for name in flags.models]
    with Progress("fuzz", flags.cases, "case") as progress:
        report = fuzz(trained, flags.cases, flags.seed, progress.step)
    for words, count in report.refusals.most_common():
        print(f"{count:8}  {words} ...")
    print(f"{report.images:8}  decoded to an image of the declared size")
    print(*report.failures, sep="\n", file=sys.stderr, end="\n" * bool(report.failures))
    if flags.out:
        rows = [{**asdict(t), "seconds": round(t.seconds, 1)} for t in report.tallies.values()]
        tables.write(flags.out, rows)
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
