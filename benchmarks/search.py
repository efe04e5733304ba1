"""What the encoder's search gains, and its price: rate and distortion by effort.

    python test.py --model_name Hyperprior --dataset_path data/kodak --effort 200 \\
      --resultdir statistics/searched                # and other models and efforts
    python -m benchmarks search --record

Reads <searched>/<Model>-searched<N>.csv as test.py writes it, and <resultdir>/<Model>.csv for
effort 0, both of the same images, and writes search.csv: the means over the images, by how many
percent lambda * 255**2 * MSE + bpp is above that of effort 0, and for each effort the BD-rate
(PSNR) against effort 0 at the same lambdas, empty where fewer than two were measured. Seconds are
not those of the results, which come from several machines: they follow from the steps and from
<resultdir>/search_speed.csv, empty without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.records import number, print_table, write_csv
from evaluation import tables
from evaluation.metrics import bd_rate
from evaluation.results import STATISTICS, Results, images_of, means
from evaluation.tables import Row
from models.errors import DataError
from models.presets import STUDIED, digits, points


def efforts_of(model: str, folder: Path) -> list[int]:
    """The efforts that a folder has results of, lowest first, after 0; none without any."""
    names = (path.stem.split("-searched")[1] for path in folder.glob(f"{model}-searched*.csv"))
    efforts = sorted(int(name) for name in names if name.isdecimal())
    return [0, *efforts] if efforts else []


def losses(rows: Sequence[Row]) -> pd.Series:
    """lambda * 255**2 * MSE + bpp by lambda, mean over the images."""
    frame = pd.DataFrame(rows)
    errors = 10 ** (-frame["psnr"] / 10)
    return (frame["lmbda"] * 255**2 * errors + frame["bpp"]).groupby(frame["lmbda"]).mean()


def seconds(model: str, lmbda: float, effort: int, speeds: Sequence[Row]) -> str:
    """Of an image of 768x512 at an effort, from the rows of search_speed.csv; "" without its."""
    widths = {(p.N, p.M) for p in points(model) if p.lmbda == lmbda}
    for row in speeds:
        if row["model"] == model and (row["N"], row["M"]) in widths:
            searching = row["others_s"] + effort * row["step_s"]
            return number(searching if effort else row["plain_s"], 3)
    return ""


def rows_of(
    model: str, effort: int, rows: Sequence[Row], plain: Sequence[Row], speeds: Sequence[Row]
) -> list[dict[str, str]]:
    """CSV rows of a model at one effort; `plain` are its images at effort 0."""
    curve, before = means(rows), losses(plain)
    searched = {mean["lmbda"] for mean in curve}
    if missing := searched - set(before.index):
        raise DataError(
            f"{model} has no results at lambda {digits(min(missing))} without a search."
        )
    anchor = [mean for mean in means(plain) if mean["lmbda"] in searched]  # chords against chords
    sides = [[mean[k] for mean in c] for c in (anchor, curve) for k in ("bpp", "psnr")]
    gain = f"{bd_rate(*sides).value:.3f}" if effort and len(anchor) > 1 else ""
    change = 100 * (losses(rows) / before - 1)
    return [
        {
            "model": model, "lmbda": digits(m["lmbda"]), "effort": str(effort),
            "bpp": f"{m['bpp']:.6f}", "psnr": f"{m['psnr']:.5f}", "ms_ssim": f"{m['ms_ssim']:.6f}",
            "seconds": seconds(model, m["lmbda"], effort, speeds),
            "loss_percent": f"{change[m['lmbda']]:.3f}" if effort else "",
            "bd_rate_percent": gain,
        }
        for m in curve
    ]  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--searched", type=Path, default=STATISTICS / "searched", metavar="DIR",
        help="results of test.py with --effort (default: %(default)s)")  # fmt: skip
    add("--resultdir", type=Path, default=STATISTICS, metavar="DIR",
        help="results without (default: %(default)s)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Write the table and print it. DataError or UsageError for results that do not fit."""
    rows = []
    path = options.resultdir / "search_speed.csv"
    kinds = {"model": str, "N": int, "M": int}
    kinds |= dict.fromkeys(("plain_s", "others_s", "step_s"), tables.number)
    speeds = tables.read(path, kinds) if path.is_file() else []
    for model in STUDIED:
        for effort in efforts_of(model, options.searched):
            plain = Results(options.resultdir, model).rows()
            results = Results(options.searched, f"{model}-searched{effort}")
            searched = results.check(images_of(plain)) if effort else plain
            rows += rows_of(model, effort, searched, plain, speeds)
    if not rows:
        raise DataError(f"{options.searched} holds no results: run test.py with --effort.")
    print_table(rows)
    write_csv(options.outdir / "search.csv", rows)
    return 0
