"""Comparisons of curves that are fair with few points, and what each side's training has cost."""

from __future__ import annotations

import math
from itertools import pairwise

from benchmarks.report.tables import STATISTICS, rows_of, span
from evaluation.curves import Curve, measured_curve
from models.errors import DataError
from models.presets import STUDIED

ALIKE = 1.5  # lineages whose compute differs by less compare architectures
NO, PART, YES, UNTESTED = "does not hold", "holds in part", "holds", "not tested"


def rate_at(curve: Curve, psnr: float) -> float:
    """bpp of a curve at a PSNR in dB, its logarithm interpolated linearly; nan outside."""
    points = sorted((quality, bpp) for bpp, quality in curve.points("psnr"))
    for (low, start), (high, end) in pairwise(points):
        if low <= psnr <= high:
            part = (psnr - low) / (high - low)
            return math.exp((1 - part) * math.log(start) + part * math.log(end))
    return math.nan


def rates_against(curve: Curve, other: Curve) -> list[float]:
    """By how many percent the rate at each point is above the other curve's at that PSNR.

    Points whose PSNR the other curve does not reach are left out.
    """
    rates = ((bpp, rate_at(other, psnr)) for bpp, psnr in curve.points("psnr"))
    return [100 * (bpp / same - 1) for bpp, same in rates if math.isfinite(same)]


def our_curve(model: str) -> Curve | None:
    """Our curve of a model; None where nothing is tested."""
    try:
        return measured_curve(model, STATISTICS)
    except DataError:
        return None


def lineage(model: str, lmbda: str) -> dict[str, str]:
    """The columns lineage_* of statistics/checkpoints.csv of an operating point; {} if unknown."""
    for row in rows_of("checkpoints"):
        if row["model"] == model and float(row["lmbda"]) == float(lmbda):
            return {name: value for name, value in row.items() if name.startswith("lineage_")}
    return {}


def compute_ratio(model: str, other: str) -> float:
    """Multiply-accumulates of a model's lineages over another's, geometric mean over the lambdas
    that both are trained for; nan where there are none."""
    macs: dict[str, dict[float, float]] = {model: {}, other: {}}
    for row in rows_of("checkpoints"):
        if row["model"] in macs and row.get("lineage_petamacs"):
            macs[row["model"]][float(row["lmbda"])] = float(row["lineage_petamacs"])
    common = macs[model].keys() & macs[other].keys()
    logs = [math.log(macs[model][k] / macs[other][k]) for k in common]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def searched_alike() -> list[dict[str, str]]:
    """Rows of statistics/search.csv: the most steps that all models have BD-rates for; or none."""
    rows = [r for r in rows_of("search") if r["bd_rate_percent"] and r["seconds"]]
    for effort in sorted({int(r["effort"]) for r in rows}, reverse=True):
        own = [r for r in rows if r["effort"] == str(effort)]
        if {r["model"] for r in own} == set(STUDIED):
            return own
    return []


def verdict(differences: list[float], compute: float = 1.0) -> str:
    """Of a claim that all differences are below zero, ours having had so many times the compute.

    A better result after more training holds in part, a worse one after less tests nothing.
    """
    if not differences:
        return UNTESTED
    better = [d < 0 for d in differences]
    if all(better):
        return PART if compute > ALIKE else YES
    if compute < 1 / ALIKE:
        return UNTESTED
    return PART if any(better) else NO


def in_words(differences: list[float]) -> str:
    """Rates at equal PSNR, in percent of the other's."""
    if not differences:
        return "no point at a PSNR that both reach"
    return f"rate at equal PSNR {span(differences, '+.1f', ' %')}"
