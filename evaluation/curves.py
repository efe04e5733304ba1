"""Curves of rate and distortion from CSVs (ours, published, classical), and their BD-rates."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.metrics import bd_rate, ms_ssim_db
from models.errors import DataError
from models.presets import CATALOGUE, STUDIED

PAIRS = tuple(zip(STUDIED[1:], STUDIED, strict=False))  # each model against the one before it
LEAST_POINTS, LEAST_RANGE = 3, 1.0  # of a curve, and dB in common: less gives no BD-rate
COLUMNS = (
    "curve", "against", "metric", "bd_rate_percent", "range_low_db", "range_high_db",
    "points", "points_against", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The points of one codec: bpp, PSNR in dB, and MS-SSIM from 0 to 1 (nan where unknown)."""

    name: str
    bpp: tuple[float, ...]
    psnr: tuple[float, ...]
    ms_ssim: tuple[float, ...]

    def points(self, metric: str) -> list[tuple[float, float]]:
        """(bpp, dB) where the metric, "psnr" or "ms_ssim", is known; MS-SSIM in dB."""
        values = self.psnr if metric == "psnr" else map(ms_ssim_db, self.ms_ssim)
        pairs = zip(self.bpp, values, strict=True)
        return [pair for pair in pairs if all(map(math.isfinite, pair))]


def read_rows(path: Path, columns: Iterable[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file; `DataError` if it or one of the `columns` is missing."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}.")
            return list(reader)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}.") from error


def curve_from(name: str, rows: list[dict[str, str]], psnr: str, ms_ssim: str, path: Path) -> Curve:
    """A curve from CSV rows, `psnr` and `ms_ssim` naming their columns; an empty cell is nan."""

    def column(key: str) -> tuple[float, ...]:
        try:
            return tuple(float(row.get(key) or "nan") for row in rows)
        except ValueError as error:
            raise DataError(f"{path}, column {key}: {error}.") from None

    return Curve(name, column("bpp"), column(psnr), column(ms_ssim))


def measured_curve(model: str, folder: Path) -> Curve:
    """Our curve of a model, from <folder>/<model>.csv."""
    path = folder / f"{model}.csv"
    return curve_from(model, read_rows(path, ("bpp", "psnr")), "psnr", "ms_ssim", path)


def original_curve(model: str, folder: Path) -> Curve:
    """The original study's curve of a model (no MS-SSIM was published)."""
    path = folder / "reference" / "seminar_2022_results.csv"
    return _selected(path, "model", model, f"{model} (original study)")


def reference_curve(codec: str, folder: Path) -> Curve:
    """A published curve by its name in the reference table, such as "mbt2018" or "VTM"."""
    path = folder / "reference" / "kodak_rd.csv"
    return _selected(path, "codec", codec, codec)


def classical_curve(codec: str, folder: Path) -> Curve:
    """A classical codec's curve as measured by `benchmarks.classical`."""
    path = folder / "classical.csv"
    rows = [row for row in read_rows(path, ("codec", "bpp", "psnr")) if row["codec"] == codec]
    if not rows:
        raise DataError(f"{path} has no rows for {codec}.")
    return curve_from(codec, rows, "psnr", "ms_ssim", path)


def _selected(path: Path, key: str, value: str, name: str) -> Curve:
    rows = read_rows(path, (key, "bpp", "psnr_rgb_db"))
    rows = [row for row in rows if row[key] == value]
    if not rows:
        raise DataError(f"{path} has no rows for {value}.")
    return curve_from(name, rows, "psnr_rgb_db", "ms_ssim_rgb", path)


def compare(curve: Curve, against: Curve, metric: str) -> dict[str, str]:
    """One row of the table without its names: BD-rate of `curve`, range, points, or a reason.

    There is none of fewer than `LEAST_POINTS` points or over less than `LEAST_RANGE`: the mean over
    so little says nothing of the curves.
    """
    test, anchor = curve.points(metric), against.points(metric)
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
    return {
        **row,
        "bd_rate_percent": f"{delta.value:.3f}",
        "range_low_db": f"{delta.low:.3f}",
        "range_high_db": f"{delta.high:.3f}",
    }


def table(folder: Path) -> list[dict[str, str]]:
    """All comparisons of the study from the CSVs in `folder`, as rows of `COLUMNS`."""
    wanted = [(model, f"{model} (original study)", "psnr") for model in STUDIED]
    published = [(model, entry.published) for model, entry in CATALOGUE.items()]
    for metric in ("psnr", "ms_ssim"):
        wanted += [(model, other, metric) for model, other in published]
        wanted += [(model, other, metric) for model, other in PAIRS]
    rows = []
    for model, other, metric in wanted:
        names = {"curve": model, "against": other, "metric": metric}
        try:
            row = compare(measured_curve(model, folder), _find(other, folder), metric)
        except DataError as error:
            row = {"reason": str(error)}
        rows.append(dict.fromkeys(COLUMNS, "") | names | row)
    return rows


def _find(name: str, folder: Path) -> Curve:
    if name in STUDIED:
        return measured_curve(name, folder)
    if name.endswith(" (original study)"):
        return original_curve(name.removesuffix(" (original study)"), folder)
    return reference_curve(name, folder)


def mean_interval(values: Sequence[float], draws: int = 10_000) -> tuple[float, float, float]:
    """The mean of values (n,), and the ends of its 95 % bootstrap interval.

    Images are drawn n at a time with replacement; the interval holds the middle 95 % of the
    means of these draws (Efron and Tibshirani 1993, section 13.3). Seeded.
    """
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(0).integers(len(array), size=(draws, len(array)))
    low, high = np.percentile(array[chosen].mean(1), (2.5, 97.5))
    return float(array.mean()), float(low), float(high)
