"""Tables that check the original study's own numbers: its curves, its checkerboard, its times."""

from __future__ import annotations

import math
from itertools import pairwise

from benchmarks.report.tables import STATISTICS, markdown, rows_of
from evaluation.curves import (
    PAIRS,
    Curve,
    compare,
    original_curve,
    reference_curve,
)
from evaluation.metrics import bd_psnr
from models.errors import DataError
from models.presets import CATALOGUE, STUDIED, short

JOINT, CHECKERBOARD = STUDIED[2:]


def rate_at(curve: Curve, psnr: float) -> float:
    """bpp of a curve at a PSNR in dB, its logarithm interpolated linearly; nan outside."""
    points = sorted((quality, bpp) for bpp, quality in curve.points("psnr"))
    for (low, start), (high, end) in pairwise(points):
        if low <= psnr <= high:
            part = (psnr - low) / (high - low)
            return math.exp((1 - part) * math.log(start) + part * math.log(end))
    return math.nan


def _bd(curve: Curve, against: Curve) -> str:
    value = compare(curve, against, "psnr").get("bd_rate_percent")
    return f"{float(value):+.1f} %" if value else "-"


def _bd_psnr(curve: Curve, against: Curve) -> str:
    points = zip(*against.points("psnr"), strict=True), zip(*curve.points("psnr"), strict=True)
    (anchor, test) = (tuple(pair) for pair in points)
    return f"{bd_psnr(*anchor, *test).value:+.2f} dB"


def curves() -> str:
    """BD-rates of the original study's curves against published ones and among themselves."""
    names = ("JPEG", "JPEG2000", "BPG444")
    before = dict(PAIRS)
    rows = []
    for model in STUDIED:
        try:
            curve = original_curve(model, STATISTICS)
            published = CATALOGUE[model].published
            others = [reference_curve(name, STATISTICS) for name in (*names, published)]
            row = [short(model), *(_bd(curve, other) for other in others)]
            row += [_bd_psnr(curve, others[-1])]
            if model in before:
                other = original_curve(before[model], STATISTICS)
                row += [f"{_bd(curve, other)} ({short(before[model])})"]
            else:
                row += ["-"]
        except DataError:
            continue
        rows.append(row)
    header = ["original's curve", "JPEG", "JPEG2000", "BPG 4:4:4", "same architecture, published",
              "the same, PSNR", "original's model before it"]  # fmt: skip
    return markdown(header, rows) if rows else "No reference values are committed.\n"


def ratios() -> list[tuple[float, float, float, float]]:
    """(lambda, Joint's bpp, Checkerboard's bpp, Checkerboard's PSNR) of the original."""
    found = rows_of("reference/seminar_2022_results")
    joint = {r["lmbda"]: float(r["bpp"]) for r in found if r["model"] == JOINT}
    return [
        (float(r["lmbda"]), joint[r["lmbda"]], float(r["bpp"]), float(r["psnr_rgb_db"]))
        for r in found
        if r["model"] == CHECKERBOARD and r["lmbda"] in joint
    ]


def checkerboard() -> str:
    """The original's checkerboard beside its Joint and beside JPEG at the same PSNR."""
    try:
        jpeg = reference_curve("JPEG", STATISTICS)
    except DataError:
        return "No reference values are committed.\n"
    rows = []
    for lmbda, joint, rate, psnr in ratios():
        same = rate_at(jpeg, psnr)
        rows.append([
            f"{lmbda:g}", f"{joint:.4f}", f"{rate:.4f}", f"{rate / joint:.2f}", f"{psnr:.2f}",
            f"{same:.4f}", f"{rate / same:.2f}",
        ])  # fmt: skip
    header = [
        "lambda", "Joint (bpp)", "Checkerboard (bpp)", "ratio", "Checkerboard's PSNR (dB)",
        "JPEG at that PSNR (bpp)", "Checkerboard / JPEG",
    ]  # fmt: skip
    return markdown(header, rows)


def decoding_seconds() -> list[float]:
    """The original's decoding times of Joint, seconds per image, rising lambda."""
    found = rows_of("reference/seminar_2022_results")
    return [float(r["decode_s"]) for r in found if r["model"] == JOINT]
