"""What the encoder's search gains, and its price: rate and distortion by effort.

    python test.py --model_name Hyperprior --dataset_path data/kodak --effort 200 \\
      --resultdir statistics/searched                # and other models and efforts
    python -m benchmarks.search [--searched DIR] [--resultdir statistics] [--out FILE]

Reads <searched>/<Model>-searched<N>.csv as test.py writes it, and <resultdir>/<Model>.csv for
effort 0, both of the same images, and writes search.csv: the means over the images, by how many
percent lambda * 255**2 * MSE + bpp is above that of effort 0, and for each effort the BD-rate
(PSNR) against effort 0 at the same lambdas, empty where fewer than two were measured. Seconds are
not those of the results, which come from several machines: they follow from the steps and from
<resultdir>/search_speed.csv (`benchmarks.search_speed`), empty without it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.records import number, print_table
from evaluation.curves import read_rows
from evaluation.metrics import bd_rate, trade_off
from evaluation.results import STATISTICS, Results, images_of, means
from evaluation.tables import Row
from models.cli import guarded
from models.errors import DataError
from models.files import csv_text, write_text
from models.presets import STUDIED, points


def efforts_of(model: str, folder: Path) -> list[int]:
    """The efforts that a folder has results of, lowest first."""
    names = (path.stem for path in folder.glob(f"{model}-searched*.csv"))
    found = (re.fullmatch(rf"{model}-searched(\d+)", name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def losses(rows: Sequence[Row]) -> dict[float, float]:
    """lambda * 255**2 * MSE + bpp by lambda, mean over the images."""
    found: dict[float, list[float]] = {}
    for row in rows:
        found.setdefault(row["lmbda"], []).append(trade_off(row["bpp"], row["psnr"], row["lmbda"]))
    return {lmbda: fmean(values) for lmbda, values in found.items()}


def seconds(model: str, lmbda: float, effort: int, speeds: Sequence[dict[str, str]]) -> str:
    """Of an image of 768x512 at an effort, from the rows of search_speed.csv; "" without its."""
    widths = {(str(p.N), str(p.M)) for p in points(model) if p.lmbda == lmbda}
    for row in speeds:
        if row["model"] == model and (row["N"], row["M"]) in widths:
            searching = float(row["others_s"]) + effort * float(row["step_s"])
            return number(searching if effort else float(row["plain_s"]), 3)
    return ""


def rows_of(
    model: str,
    effort: int,
    rows: Sequence[Row],
    plain: Sequence[Row],
    speeds: Sequence[dict[str, str]],
) -> list[dict[str, str]]:
    """CSV rows of a model at one effort; `plain` are its images at effort 0."""
    curve = means(rows)
    searched = {m["lmbda"] for m in curve}
    anchor = [m for m in means(plain) if m["lmbda"] in searched]  # chords against chords
    gain = ""
    if effort and len(anchor) > 1:
        sides = [[m[k] for m in c] for c in (anchor, curve) for k in ("bpp", "psnr")]
        gain = f"{bd_rate(*sides).value:.3f}"
    loss, before = losses(rows), losses(plain)

    def change(lmbda: float) -> float:
        return 100 * (loss[lmbda] / before[lmbda] - 1)

    return [
        {
            "model": model, "lmbda": f"{m['lmbda']:g}", "effort": str(effort),
            "bpp": f"{m['bpp']:.6f}", "psnr": f"{m['psnr']:.5f}", "ms_ssim": f"{m['ms_ssim']:.6f}",
            "seconds": seconds(model, m["lmbda"], effort, speeds),
            "loss_percent": f"{change(m['lmbda']):.3f}" if effort else "",
            "bd_rate_percent": gain,
        }
        for m in curve
    ]  # fmt: skip


def run(searched: Path, folder: Path, out: Path | None) -> int:
    """Write the table and print it; raises what `guarded` turns into a line."""
    rows = []
    path = folder / "search_speed.csv"
    speeds = read_rows(path) if path.is_file() else []
    for model in STUDIED:
        efforts = efforts_of(model, searched)
        plain = Results(folder, model).rows() if efforts else []
        images = images_of(plain)
        rows += rows_of(model, 0, plain, plain, speeds)
        for effort in efforts:
            found = Results(searched, f"{model}-searched{effort}").check(images)
            rows += rows_of(model, effort, found, plain, speeds)
    if not rows:
        raise DataError(f"{searched} holds no results of searches: run test.py with --effort.")
    print_table(rows)
    out = out or folder / "search.csv"
    write_text(out, csv_text(rows, rows[0]))
    print(f"Wrote {out}.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--searched", type=Path, default=STATISTICS / "searched", metavar="DIR")
    add("--resultdir", type=Path, default=STATISTICS, metavar="DIR")
    add("--out", type=Path, metavar="FILE", help="default: search.csv in the result folder")
    options = parser.parse_args(arguments)
    return guarded("search", lambda: run(options.searched, options.resultdir, options.out))


if __name__ == "__main__":
    sys.exit(main())
