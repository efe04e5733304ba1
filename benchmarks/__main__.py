"""Benchmarks of the study: `python -m benchmarks NAME [flags]`.

Results go to outputs/, or, with --record, into the study's own files in statistics/.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.records import print_table, write_csv
from evaluation.plots import IMAGES
from evaluation.results import OUTPUTS, STATISTICS
from models.cli import guarded

# A module offers `run(options)`, and `configure(parser)` if it has flags of its own. The rows that
# `run` returns, if any, become CSV, which the module names, or <NAME>.csv; those with a --device
# are times, and name the machine.
NAMES = (
    "speed", "orders", "classical", "priors", "complexity", "densities", "side_information",
    "gallery", "noise", "any_rate",
)  # fmt: skip


def described() -> str:
    """One line for each benchmark: its name, and the first line of its docstring."""
    docs = {name: importlib.import_module(f"benchmarks.{name}").__doc__ or "" for name in NAMES}
    return "\n".join(f"  {name:16} {doc.splitlines()[0]}" for name, doc in docs.items())


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] not in NAMES:
        asked = words[:1] in ([], ["-h"], ["--help"])
        print(f"{__doc__}\n{described()}", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    name, *flags = words
    module = importlib.import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--outdir", type=Path, default=OUTPUTS, metavar="DIR",
        help="folder of the results (default: %(default)s)")  # fmt: skip
    add("--record", dest="outdir", action="store_const", const=STATISTICS,
        help="write the study's own files, in statistics/")  # fmt: skip
    if hasattr(module, "configure"):
        module.configure(parser)
    options = parser.parse_args(flags)
    options.figures = IMAGES if options.outdir == STATISTICS else options.outdir

    def work() -> int:
        if rows := module.run(options):
            print_table(rows)
            path = options.outdir / getattr(module, "CSV", f"{name}.csv")
            write_csv(path, rows, getattr(options, "device", None))
        return 0

    return guarded(name, work)


if __name__ == "__main__":
    sys.exit(main())
