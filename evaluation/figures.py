"""What a test shows: the curves of rate and distortion, and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from evaluation.curves import ORIGINAL, load_curve
from evaluation.photographs import KODAK, Photograph, is_kodak
from evaluation.plots import Line, contact_sheet, rd_figure, style_of
from evaluation.results import Results, means
from evaluation.tables import Row
from models.errors import DataError
from models.images import read_image
from models.presets import CATALOGUE, digits, short

SHEET_IMAGES, SHEET_SIDE = 6, 384
Tested = Sequence[tuple[Results, list[Row]]]  # a model's results, and the rows of this run


def draw(tested: Tested, photographs: list[Photograph], folder: Path) -> None:
    """rd_psnr.png, rd_ms_ssim.png and contact_sheet.png of the tested models."""
    kodak = is_kodak(photographs)
    for metric in ("psnr", "ms_ssim"):
        lines: list[Line] = []
        for results, _ in tested:
            points = means(results.rows())
            bpp, quality = ([mean[key] for mean in points] for key in ("bpp", metric))
            style = style_of(results.name.removeprefix("compressai-"))
            lines.append((f"{short(results.name)} (measured)", bpp, quality, style))
            if kodak:
                lines += published_lines(results.name, metric)
        title = tested[0][0].name if len(tested) == 1 else ""
        with suppress(ValueError):  # no finite quality: the images are too small for MS-SSIM
            rd_figure(lines, metric, folder / f"rd_{metric}.png", title=title)
    draw_sheet(tested, photographs, folder / "contact_sheet.png")


def published_lines(name: str, metric: str) -> list[Line]:
    """The original study's and CompressAI's curves of a model, where there are any."""
    lines: list[Line] = []
    zoo = CATALOGUE[name].published if name in CATALOGUE else name.removeprefix("compressai-")
    for source, codec, about in (("original", name + ORIGINAL, ""), ("zoo", zoo, " (published)")):
        with suppress(DataError):
            curve = load_curve(codec, KODAK.parent)
            style = style_of(zoo, source)
            lines.append((f"{codec}{about}", curve.bpp, getattr(curve, metric), style))
    return lines


def draw_sheet(tested: Tested, photographs: list[Photograph], path: Path) -> None:
    """The middle of some originals beside their reconstructions."""
    step = max(1, len(photographs) // SHEET_IMAGES)
    sheet = []
    for photograph in photographs[::step][:SHEET_IMAGES]:
        line = [(f"{photograph.stem}\noriginal", _middle(photograph.read()))]
        for results, rows in tested:
            for row in (row for row in rows if row["image"] == photograph.name):
                title = f"{short(results.name)}, lambda {digits(row['lmbda'])}\n"
                title += f"{row['bpp']:.3f} bpp, {row['psnr']:.2f} dB"
                pixels = read_image(row["decoded"], row["width"] * row["height"])
                line.append((title, _middle(pixels)))
        sheet.append(line)
    contact_sheet(sheet, path)


def _middle(pixels: np.ndarray) -> np.ndarray:
    top, left = (max(0, (side - SHEET_SIDE) // 2) for side in pixels.shape[:2])
    return pixels[top : top + SHEET_SIDE, left : left + SHEET_SIDE]
