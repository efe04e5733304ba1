"""Curves of rate and distortion from CSVs (ours, published, classical), and their BD-rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.metrics import bd_rate, ms_ssim_db
from evaluation.tables import Kind, Row, number, number_or_nan, read
from models.errors import DataError
from models.presets import CATALOGUE, STUDIED

PAIRS = tuple(zip(STUDIED[1:], STUDIED, strict=False))  # each model against the one before it
PUBLISHED_PAIRS = (
    ("bmshj2018-hyperprior", "bmshj2018-factorized"), ("mbt2018-mean", "bmshj2018-hyperprior"),
    ("mbt2018", "bmshj2018-hyperprior"), ("paper-minnen2018-checkerboard", "mbt2018"),
)  # fmt: skip
ORIGINAL = " (original study)"
SEARCHED = "-searched200"  # of files by the encoder's search of so many steps
MEASURED, PUBLISHED = ("JPEG", "JPEG2000", "WebP", "AVIF"), ("BPG444", "VTM")  # classical codecs
POINT: dict[str, Kind] = {"bpp": number, "psnr": number, "ms_ssim": number_or_nan}
LEAST_POINTS, LEAST_RANGE = 3, 1.0  # of a curve, and dB in common: less gives no BD-rate
COLUMNS = (
    "curve", "against", "metric", "bd_rate_percent", "range_low_db", "range_high_db",
    "points", "points_against", "images", "image_mean_percent", "image_interval_low_percent",
    "image_interval_high_percent", "image_least_percent", "image_greatest_percent", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The points of one codec: bpp, PSNR in dB, and MS-SSIM from 0 to 1 (nan where unknown)."""

    name: str
    bpp: tuple[float, ...]
    psnr: tuple[float, ...]
    ms_ssim: tuple[float, ...]

    def pairs(self, metric: str) -> list[tuple[float, float]]:
        """`finite_points` by the metric "psnr" or "ms_ssim"."""
        return finite_points(self.bpp, getattr(self, metric), metric)


def finite_points(
    bpp: Iterable[float], quality: Iterable[float], metric: str
) -> list[tuple[float, float]]:
    """(bpp, dB), lowest rate first, where the quality is known; MS-SSIM in dB."""
    values = quality if metric == "psnr" else map(ms_ssim_db, quality)
    return sorted(pair for pair in zip(bpp, values, strict=True) if all(map(math.isfinite, pair)))


def curve_of(name: str, rows: Sequence[Row], psnr: str = "psnr", ms_ssim: str = "ms_ssim") -> Curve:
    """The curve of rows, whose columns are bpp and the two named; without `ms_ssim`, nan."""
    qualities = tuple(row[psnr] for row in rows), tuple(row.get(ms_ssim, math.nan) for row in rows)
    return Curve(name, tuple(row["bpp"] for row in rows), *qualities)


def load_curve(name: str, folder: Path) -> Curve:
    """The curve of that name from the CSVs in `folder`. DataError if there is none.

    "Hyperprior": ours; "Hyperprior-searched200": with a search; "Hyperprior (original study)", of
    which no MS-SSIM was published; "JPEG" and others of `MEASURED`; else a published
    one, such as "mbt2018" or "VTM".
    """
    if name in STUDIED:
        return curve_of(name, read(folder / f"{name}.csv", POINT))
    if SEARCHED in name:
        return curve_of(name, read(folder / "searched" / f"{name}.csv", POINT))
    codec = name.removesuffix(ORIGINAL)
    file, key = "reference/kodak_rd.csv", "codec"
    kinds: dict[str, Kind] = {"bpp": number, "psnr_rgb_db": number, "ms_ssim_rgb": number_or_nan}
    if codec != name:
        file, key = "reference/seminar_2022_results.csv", "model"
        del kinds["ms_ssim_rgb"]
    elif name in MEASURED:
        file, kinds = "classical.csv", POINT
    rows = [row for row in read(folder / file, {key: str, **kinds}) if row[key] == codec]
    if not rows:
        raise DataError(f"{folder / file} has no rows for {codec}.")
    return curve_of(name, rows, *list(kinds)[1:])


def compare(curve: Curve, against: Curve, metric: str) -> dict[str, str]:
    """One row of the table without its names: BD-rate of `curve`, range, points, or a reason.

    There is none of fewer than `LEAST_POINTS` points or over less than `LEAST_RANGE`: the mean over
    so little says nothing of the curves.
    """
    test, anchor = curve.pairs(metric), against.pairs(metric)
    row = {"points": str(len(test)), "points_against": str(len(anchor))}
    for name, points in ((curve.name, test), (against.name, anchor)):
        if len(points) < LEAST_POINTS:
            few = f"{name} has {len(points)} of the {LEAST_POINTS} points that a BD-rate needs"
            return {**row, "reason": few if points else f"{name} has no {metric} values"}
    try:
        delta = bd_rate(*zip(*anchor, strict=True), *zip(*test, strict=True))
    except ValueError as error:
        return {**row, "reason": str(error)}
    if (common := delta.high - delta.low) < LEAST_RANGE:
        return {**row, "reason": f"only {common:.2f} dB in common, {LEAST_RANGE:g} dB are needed"}
    names = ("bd_rate_percent", "range_low_db", "range_high_db")
    return row | {name: f"{value:.3f}" for name, value in zip(names, delta, strict=True)}


def table(folder: Path) -> list[dict[str, str]]:
    """All comparisons of the study from the CSVs in `folder`, as rows of `COLUMNS`.

    What cannot be compared keeps its row, with the reason. DataError for a CSV that is missing or
    broken.
    """
    published = [(model, entry.published) for model, entry in CATALOGUE.items()]
    wanted = [(model, f"{model}{ORIGINAL}", "psnr") for model in STUDIED]
    classical = [(model, codec) for model in STUDIED for codec in (*MEASURED, *PUBLISHED)]
    for metric in ("psnr", "ms_ssim"):
        wanted += [(*pair, metric) for pair in (*published, *PAIRS, *classical)]
    wanted += [(*pair, "psnr") for pair in PUBLISHED_PAIRS]
    wanted += [(f"{a}{SEARCHED}", f"{b}{SEARCHED}", "psnr") for a, b in PAIRS]
    wanted += [(f"{STUDIED[2]}{SEARCHED}", other, "psnr") for other in ("AVIF", "BPG444", "VTM")]
    rows = []
    for model, other, metric in wanted:
        row = compare(load_curve(model, folder), load_curve(other, folder), metric)
        if (model, other) in PAIRS:
            row |= summary(image_bd_rates(model, other, folder, metric))
        names = {"curve": model, "against": other, "metric": metric}
        rows.append(dict.fromkeys(COLUMNS, "") | names | row)
    return rows


def image_bd_rates(model: str, against: str, folder: Path, metric: str) -> list[float]:
    """BD-rate in percent of every image that both models have curves of (see `compare`).

    From <folder>/per_image/<model>.csv. The mean over images weighs each alike; the BD-rate of the
    mean curves, in which large files weigh more, is another number.
    """
    curves: list[dict[str, list[Row]]] = [{}, {}]
    for name, images in zip((model, against), curves, strict=True):
        for row in read(folder / "per_image" / f"{name}.csv", {"image": str, **POINT}):
            images.setdefault(row["image"], []).append(row)
    tests, anchors = curves
    pairs = ((tests[image], anchors[image]) for image in sorted(tests) if image in anchors)
    rows = [compare(curve_of(model, a), curve_of(against, b), metric) for a, b in pairs]
    return [float(row["bd_rate_percent"]) for row in rows if "bd_rate_percent" in row]


def summary(values: Sequence[float]) -> dict[str, str]:
    """Columns of the table: how many images, their mean, its 95 % interval, and their range."""
    if not values:
        return {"images": "0"}
    columns = (key for key in COLUMNS if key.startswith("image_"))
    numbers = (*mean_interval(values), min(values), max(values))
    cells = {key: f"{value:.3f}" for key, value in zip(columns, numbers, strict=True)}
    return {"images": str(len(values)), **cells}


def mean_interval(values: Sequence[float], draws: int = 10_000) -> tuple[float, float, float]:
    """The mean of values (n,), and the ends of its 95 % bootstrap interval.

    Images are drawn n at a time with replacement; the interval holds the middle 95 % of the
    means of these draws (Efron and Tibshirani 1993, section 13.3). Seeded.
    """
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(len(array), size=(draws, len(array)))
    low, high = np.percentile(array[chosen].mean(1), (2.5, 97.5))
    return float(array.mean()), float(low), float(high)
