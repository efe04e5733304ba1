"""Curves of rate and distortion from CSVs (ours, published, classical), and their BD-rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.metrics import bd_rate, ms_ssim_db
from evaluation.tables import Kind, Row, number, number_or_nan, read
from models.errors import DataError
from models.presets import CATALOGUE, STUDIED

PAIRS = tuple(zip(STUDIED[1:], STUDIED, strict=False))  # each model against the one before it
ORIGINAL = " (original study)"
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
        """(bpp, dB) where the metric, "psnr" or "ms_ssim", is known; MS-SSIM in dB."""
        values = self.psnr if metric == "psnr" else map(ms_ssim_db, self.ms_ssim)
        pairs = zip(self.bpp, values, strict=True)
        return [pair for pair in pairs if all(map(math.isfinite, pair))]


def curve_of(name: str, rows: Sequence[Row], psnr: str = "psnr", ms_ssim: str = "ms_ssim") -> Curve:
    """The curve of rows, whose columns are bpp and the two named; without `ms_ssim`, nan."""
    qualities = tuple(row[psnr] for row in rows), tuple(row.get(ms_ssim, math.nan) for row in rows)
    return Curve(name, tuple(row["bpp"] for row in rows), *qualities)


def measured_curve(model: str, folder: Path) -> Curve:
    """Our curve of a model, from <folder>/<model>.csv as test.py writes it."""
    return curve_of(model, read(folder / f"{model}.csv", POINT))


def classical_curve(codec: str, folder: Path) -> Curve:
    """A classical codec's curve as measured by `benchmarks.classical`."""
    return curve_of(codec, _rows(folder / "classical.csv", "codec", codec, POINT))


def reference_curve(codec: str, folder: Path) -> Curve:
    """A published curve by its name in the reference table, such as "mbt2018" or "VTM"."""
    kinds = {"bpp": number, "psnr_rgb_db": number, "ms_ssim_rgb": number_or_nan}
    rows = _rows(folder / "reference" / "kodak_rd.csv", "codec", codec, kinds)
    return curve_of(codec, rows, "psnr_rgb_db", "ms_ssim_rgb")


def original_curve(model: str, folder: Path) -> Curve:
    """The original study's curve of a model (no MS-SSIM was published)."""
    kinds = {"bpp": number, "psnr_rgb_db": number}
    path = folder / "reference" / "seminar_2022_results.csv"
    return curve_of(f"{model}{ORIGINAL}", _rows(path, "model", model, kinds), "psnr_rgb_db")


def _rows(path: Path, key: str, value: str, kinds: Mapping[str, Kind]) -> list[Row]:
    """Those rows of a CSV file whose column `key` is `value`. DataError if there is none."""
    rows = [row for row in read(path, {key: str, **kinds}) if row[key] == value]
    if not rows:
        raise DataError(f"{path} has no rows for {value}.")
    return rows


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
    for metric in ("psnr", "ms_ssim"):
        wanted += [(*pair, metric) for pair in (*published, *PAIRS)]
    wanted += [(m, codec, "psnr") for m in STUDIED for codec in (*MEASURED, *PUBLISHED)]
    rows = []
    for model, other, metric in wanted:
        row = compare(measured_curve(model, folder), _curve(other, folder), metric)
        if (model, other) in PAIRS:
            row |= summary(image_bd_rates(model, other, folder, metric))
        names = {"curve": model, "against": other, "metric": metric}
        rows.append(dict.fromkeys(COLUMNS, "") | names | row)
    return rows


def _curve(name: str, folder: Path) -> Curve:
    if name in STUDIED:
        return measured_curve(name, folder)
    if name.endswith(ORIGINAL):
        return original_curve(name.removesuffix(ORIGINAL), folder)
    if name in MEASURED:
        return classical_curve(name, folder)
    return reference_curve(name, folder)


def image_bd_rates(model: str, against: str, folder: Path, metric: str) -> list[float]:
    """BD-rate in percent of every image that both models have curves of (see `compare`).

    From <folder>/per_image/<model>.csv. The mean over images weighs each alike; the BD-rate of the
    mean curves, in which large files weigh more, is another number.
    """
    curves = []
    for name in (model, against):
        rows = read(folder / "per_image" / f"{name}.csv", {"image": str, **POINT})
        images = sorted({row["image"] for row in rows})
        curves.append({i: curve_of(name, [r for r in rows if r["image"] == i]) for i in images})
    tests, anchors = curves
    pairs = [(tests[image], anchors[image]) for image in tests if image in anchors]
    values = (compare(*pair, metric).get("bd_rate_percent") for pair in pairs)
    return [float(value) for value in values if value]


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
