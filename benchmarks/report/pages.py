"""The files with generated blocks, and which block each marker stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.ablations import ABLATIONS
from benchmarks.report import blocks, claims, complexity, compute, original, speed, study, trust

FILES = ("README.md", "report.md")
MARKERS = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)

TABLES: dict[str, Callable[[], str]] = {
    "status": study.status,
    "learned": study.learned,
    "claims": claims.table,
    "results": blocks.results,
    "bd_rates": blocks.bd_rates,
    "images": blocks.images,
    "training": blocks.training,
    **{name: partial(blocks.ablation, name) for name in ABLATIONS},
    "rounding": compute.rounding,
    "views": compute.views,
    "train_speed": blocks.train_speed,
    "compute": compute.lineages,
    "compute_fits": compute.laws,
    "held_out": compute.held_out,
    "gap": blocks.gap,
    "exactness": blocks.exactness,
    "range_coder": blocks.range_coder,
    "speed": speed.coding,
    "stages": speed.stages,
    "precision": speed.precision,
    "seconds": speed.seconds,
    "scaling": speed.scaling,
    "classical": blocks.classical,
    "search": blocks.search,
    "reconstructions": blocks.reconstructions,
    "complexity_printed": complexity.printed,
    "complexity": complexity.corrected,
    "original_points": original.points,
    "original_curves": original.curves,
    "original_checkerboard": original.checkerboard,
    "fuzz": trust.fuzz,
}


def fill(text: str) -> str:
    """The text with every marked block made anew; KeyError for a marker without a table."""
    return MARKERS.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}{m[3]}", text)


def filled() -> dict[Path, str]:
    """Every file of `FILES`, as it should be."""
    return {path: fill(path.read_text("utf-8")) for path in map(Path, FILES)}
