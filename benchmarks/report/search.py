"""What the encoder's search gains, and its price: the rows of search.csv, by model and effort.

Both <Model>.csv and, of the same images, searched/<Model>-searched<N>.csv are written by test.py.
The means over the images; by how many percent lambda * 255**2 * MSE + bpp is above that of effort
0; and for each effort the BD-rate (PSNR) against effort 0 at the same lambdas, empty where fewer
than two were measured. Seconds are not those of the results, which come from several machines: they
follow from the steps and from search_speed.csv.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.records import number
from evaluation import tables
from evaluation.metrics import bd_rate
from evaluation.results import Results, images_of, means
from evaluation.tables import Row
from models.errors import DataError
from models.presets import STUDIED, digits, points

SPEED = {"model": str, "N": int, "M": int}
SPEED |= dict.fromkeys(("plain_s", "others_s", "step_s"), tables.number)


def loss(lmbda: float, rows: Sequence[Row]) -> float:
    """lambda * 255**2 * MSE + bpp, mean over the images at a lambda."""
    own = [row for row in rows if row["lmbda"] == lmbda]
    return fmean(lmbda * 255**2 * 10 ** (-row["psnr"] / 10) + row["bpp"] for row in own)


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
    curve, before = means(rows), {mean["lmbda"]: mean for mean in means(plain)}
    lambdas = [mean["lmbda"] for mean in curve]
    if missing := set(lambdas) - before.keys():
        raise DataError(
            f"{model} has no results at lambda {digits(min(missing))} without a search."
        )
    anchor = [before[lmbda] for lmbda in lambdas]  # chords against chords
    sides = [[mean[k] for mean in c] for c in (anchor, curve) for k in ("bpp", "psnr")]
    gain = f"{bd_rate(*sides).value:.3f}" if effort and len(anchor) > 1 else ""
    change = {v: 100 * (loss(v, rows) / loss(v, plain) - 1) for v in lambdas}
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


def table(folder: Path) -> list[dict[str, str]]:
    """All rows, from the CSVs in `folder`. DataError or UsageError for those that do not fit."""
    speeds = tables.read(folder / "search_speed.csv", SPEED)
    rows = []
    for model in STUDIED:
        plain = Results(folder, model).rows()
        names = (p.stem for p in (folder / "searched").glob(f"{model}-searched*.csv"))
        efforts = [int(end) for name in names if (end := name.split("-searched")[1]).isdecimal()]
        for effort in sorted([0, *efforts] if efforts else []):
            results = Results(folder / "searched", f"{model}-searched{effort}")
            searched = results.check(images_of(plain)) if effort else plain
            rows += rows_of(model, effort, searched, plain, speeds)
    return rows
