"""Show what every trained model does to photographs: `make eval`.

    python -m evaluation            # two photographs and one lambda for each model: a minute
    python -m evaluation --all      # all built-in photographs and all lambdas: some minutes

Each photograph is compressed to a file that another process decodes, as in test.py. It writes the
files, the decoded images, CSVs, the curves of rate and distortion, and a contact sheet.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from evaluation.bench import Measured, measure_points
from evaluation.choice import choose_all
from evaluation.figures import draw
from evaluation.photographs import open_photographs
from evaluation.results import OUTPUTS, Results, means, table
from models import checkpoint
from models.cli import choose_device, guarded
from models.presets import short

LMBDA = 0.013  # that of the short run, or the nearest to it
PHOTOGRAPHS = 2  # of the short run


def run(flags: argparse.Namespace) -> int:
    """Measure, print and draw; raises what `guarded` turns into a line."""
    chosen = choose_all(flags.ckpt_dir, str(choose_device(flags.device)))
    photographs = open_photographs(None)[: None if flags.all else PHOTOGRAPHS]
    folder = flags.outdir / ("all" if flags.all else "short")
    tested: list[Measured] = []
    for name, points in chosen.items():
        results = Results(folder, name)
        if not flags.all:
            points = [min(points, key=lambda point: abs(math.log(point.lmbda / LMBDA)))]
        tested.append(measure_points(name, points, photographs, folder / name, results))
    rows = [(short(one.name), mean) for one in tested for mean in means(one.rows)]
    print(f"\nMeans over {len(photographs)} photographs:\n{table(rows)}\n")
    draw(tested, photographs, folder)
    print(
        f"files, decoded images  {folder}/<Model>/lmbda_<lambda>/\n"
        f"results                {folder}/<Model>.csv, {folder}/per_image/<Model>.csv\n"
        f"figures                {folder}/rd_psnr.png, {folder}/rd_ms_ssim.png\n"
        f"contact sheet          {folder}/contact_sheet.png"
    )
    if not flags.all:
        print("\nAll photographs and lambdas: `make eval ALL=1` (python -m evaluation --all).")
    return 0


def main(words: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--all", action="store_true", help="all built-in photographs and all lambdas")
    add("--ckpt_dir", type=Path, default=checkpoint.STUDY, metavar="DIR",
        help="folder of the checkpoints (default: %(default)s)")  # fmt: skip
    add("--outdir", type=Path, default=OUTPUTS / "eval", metavar="DIR",
        help="for everything that is written (default: %(default)s)")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda (default: a GPU if there is one)")
    flags = parser.parse_args(words)
    return guarded("evaluation", lambda: run(flags))


if __name__ == "__main__":
    sys.exit(main())
