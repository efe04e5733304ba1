"""The files with generated blocks, and which block each marker stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import blocks, complexity, original, study, trust
from benchmarks.report.chinese import translated

FILES = ("README.md", "report.md", "report_CN.md")
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
CHINESE = {
    "status": study.status_cn,
    "learned": study.learned_cn,
    "fuzz": trust.fuzz_cn,
}


def fill(text: str, chinese: bool = False) -> str:
    """The text with every marked block made anew; KeyError for a marker without a table."""

    def block(name: str) -> str:
        if not chinese:
            return TABLES[name]()
        return CHINESE[name]() if name in CHINESE else translated(TABLES[name]())

    return MARKERS.sub(lambda m: f"{m[1]}{block(m[2])}{m[3]}", text)


def filled() -> dict[Path, str]:
    """Every file of `FILES` that exists, as it should be."""
    paths = [path for path in map(Path, FILES) if path.exists()]
    return {path: fill(path.read_text("utf-8"), path.stem.endswith("_CN")) for path in paths}
