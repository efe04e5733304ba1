"""The files with generated blocks, and which block each marker stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import blocks, complexity, original, study, trust

FILES = ("README.md", "report.md")
MARKERS = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)

TABLES: dict[str, Callable[[], str]] = {
    "status": study.status,
    "learned": study.learned,
    "results": blocks.results,
    "bd_rates": blocks.bd_rates,
    "training": blocks.training,
    "speed": blocks.measured("codec_speed"),
    "scaling": blocks.scaling,
    "train_speed": blocks.measured("train_speed"),
    "optimizers": blocks.measured("optimizers"),
    "gap": study.gap,
    "classical": study.classical,
    "complexity_printed": complexity.printed,
    "complexity": complexity.corrected,
    "original_curves": original.curves,
    "original_checkerboard": original.checkerboard,
    "rd_figure": study.first_figure,
    "fuzz": trust.fuzz,
    **{
        f"figures_{name}": study.figures(name)
        for name in (
            "univariate_density", "rd_curves", "complexity", "side_information",
            "reconstructions", "decoding_order", "training", "scaling",
        )
    },
}  # fmt: skip


def fill(text: str) -> str:
    """The text with every marked block made anew; KeyError for a marker without a table."""
    return MARKERS.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}{m[3]}", text)


def filled() -> dict[Path, str]:
    """Every file of `FILES`, as it should be."""
    return {path: fill(path.read_text("utf-8")) for path in map(Path, FILES)}
