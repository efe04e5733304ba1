"""Rate-distortion figures and contact sheets, one look for the whole study.

Every codec has one colour and one marker wherever it appears; its line says where a curve comes
from. Figures stand on a white panel, to read the same in a light and in a dark page, and are
written without a date: the same numbers give the same file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.metrics import ms_ssim_db
from models.files import atomic_write
from models.presets import CATALOGUE

# Codec -> (colour, marker). Hues of Okabe and Ito's and of Paul Tol's colour-blind-safe sets; those
# of the classical codecs are greyer or lighter. Markers tell the codecs apart in print.
LOOKS: dict[str, tuple[str, str]] = {
    "Factorized": ("#0072B2", "o"),
    "Hyperprior": ("#D55E00", "s"),
    "JointAutoregressiveHierarchicalPriors": ("#009E73", "D"),
    "CheckerboardAutogressive": ("#AA4499", "^"),
    "mbt2018-mean": ("#999933", "v"),
    "cheng2020-anchor": ("#882255", "P"),
    "elic2022": ("#661100", "X"),
    "JPEG": ("#555555", "."),
    "JPEG2000": ("#A0A0A0", "x"),
    "WebP": ("#E69F00", "+"),
    "AVIF": ("#56B4E9", "1"),
    "AV1": ("#56B4E9", "2"),
    "BPG444": ("#332288", "3"),
    "VTM": ("#000000", "4"),
}
OTHER_LOOKS = (("#117733", "<"), ("#CC6677", ">"), ("#6699CC", "h"), ("#997700", "p"))

# The studied codecs by their short names and by those of their published curves.
STUDIED_AS = {
    known: name
    for name, entry in CATALOGUE.items()
    for known in (entry.short, entry.published.removeprefix("paper-"))
}

LINES: dict[str, dict[str, Any]] = {
    "ours": {"linestyle": "-", "linewidth": 2.0, "markersize": 6},
    "zoo": {"linestyle": "--", "linewidth": 1.2, "markersize": 4},
    "paper": {"linestyle": ":", "linewidth": 1.4, "markersize": 4},
    "original": {"linestyle": "-.", "linewidth": 1.2, "markersize": 6, "fillstyle": "none"},
    "classical": {"linestyle": "-", "linewidth": 1.0, "markersize": 5},
    "reference": {"linestyle": "--", "linewidth": 0.9, "markersize": 5},
}

IMAGES = Path("Image4md")  # the report's figures

AXES = {"psnr": "PSNR (dB, RGB)", "ms_ssim": "MS-SSIM (dB, RGB)"}

# Of all figures, also those of the notebooks.
STYLE = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}

Style = Mapping[str, Any]
Line = tuple[str, ArrayLike, ArrayLike, Style | None]  # label, bpp, quality, style


def style_of(codec: str, source: str = "ours") -> dict[str, Any]:
    """Matplotlib's line properties for a codec: its fixed colour and marker, its source's line.

    `codec` is a model's name, a classical codec's, or a name of the reference table such as
    "mbt2018" or "paper-mbt2018"; any other name gets one of four spare looks. `source` is one of
    `LINES`: "original" is the study that is reproduced, "zoo" CompressAI. `ValueError` for others.
    """
    if source not in LINES:
        raise ValueError(f"There is no source {source!r}; choose one of {', '.join(LINES)}.")
    name = codec.removeprefix("paper-")
    name = STUDIED_AS.get(name, name)
    spare = OTHER_LOOKS[sum(name.encode()) % len(OTHER_LOOKS)]
    color, marker = LOOKS.get(name, spare)
    return {"color": color, "marker": marker, **LINES[source]}


def rd_figure(
    lines: Iterable[Line],
    metric: str,
    path: str | Path,
    *,
    title: str = "",
    max_bpp: float = math.inf,
) -> None:
    """Draw rate-distortion curves into `path`, whose suffix says the format (.svg or .png).

    `lines` holds tuples (label, bpp, quality, style): two lists of equal length, in any order, and
    a style from `style_of` (None: `style_of(label)`). `metric` is "psnr", in dB, or "ms_ssim", from
    0 to 1, which is drawn in dB. Points without a finite quality are left out. `max_bpp` cuts the
    axes. `ValueError` for an unknown metric or suffix, or if there is no point to draw.
    """
    if metric not in AXES:
        raise ValueError(f"There is no metric {metric!r}; choose one of {', '.join(AXES)}.")
    drawn = [line for given in lines if len((line := _drawn(given, metric))[1])]
    points = [point for _, bpp, db, _ in drawn for point in zip(bpp, db, strict=True)]
    inside = [db for bpp, db in points if bpp <= max_bpp]
    if not inside:
        raise ValueError("There is no point to draw in the rate-distortion figure.")
    with drawing(path, (9.6, 5.6), {"font.size": 11, "axes.titlesize": "large"}) as figure:
        axes = figure.subplots()
        for label, bpp, db, style in drawn:
            axes.plot(bpp, db, label=label, **style)
        axes.set(xlabel="rate (bits per pixel)", ylabel=AXES[metric], title=title)
        if max_bpp < math.inf:
            margin = 0.04 * (max(inside) - min(inside)) or 1
            axes.set_xlim(0, max_bpp)
            axes.set_ylim(min(inside) - margin, max(inside) + margin)
        else:
            axes.set_xlim(0, 1.05 * max(bpp for bpp, _ in points))
        figure.legend(loc="outside right upper", fontsize=9, handlelength=3.2)


def _drawn(line: Line, metric: str) -> tuple[str, list[float], list[float], Style]:
    """A line ready to plot: sorted by rate, MS-SSIM in dB, without missing points."""
    label, bpp, quality, style = line
    points = sorted(zip(np.asarray(bpp, float), np.asarray(quality, float), strict=True))
    if metric == "ms_ssim":
        points = [(rate, ms_ssim_db(value)) for rate, value in points]
    points = [point for point in points if all(map(math.isfinite, point))]
    return label, [p[0] for p in points], [p[1] for p in points], style or style_of(label)


@contextmanager
def drawing(
    path: str | Path, size: tuple[float, float], style: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[Any]:
    """A Matplotlib figure of `size` inches in `STYLE`, written to `path` when the block ends.

    `style` overrides it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure  # without pyplot: no global state, no window

    look: dict[Any, Any] = {**STYLE, **style}
    with mpl.rc_context(look):
        figure = Figure(figsize=size)
        yield figure
        save_figure(figure, path)


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure as .svg or .png, alike each time. `ValueError` for another suffix."""
    import matplotlib as mpl

    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in ("svg", "png"):
        raise ValueError(f"A figure is written as .svg or .png, not as {Path(path).name!r}.")
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    with atomic_write(path) as temporary, mpl.rc_context({"svg.hashsalt": "figure"}):
        figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)


def contact_sheet(
    rows: Sequence[Sequence[tuple[str, NDArray[np.uint8]]]], path: str | Path
) -> None:
    """Write a PNG with images in a grid, each under its title.

    `rows` holds lists, of any length, of (title, uint8 array (H, W, 3)), typically an original and
    its reconstructions. Images are shown pixel by pixel, since scaling hides artefacts: pass crops
    of large ones. `ValueError` if there is no image.
    """
    from PIL import Image, ImageDraw

    tiles = [_tiles(row) for row in rows if row]
    if not tiles:
        raise ValueError("There is no image for the contact sheet.")
    gap = 12
    columns = max(map(len, tiles))
    widths = [max(row[c].width for row in tiles if c < len(row)) for c in range(columns)]
    heights = [max(tile.height for tile in row) for row in tiles]
    size = (sum(widths) + gap * (columns + 1), sum(heights) + gap * (len(tiles) + 1))
    sheet = Image.new("RGB", size, "white")
    ImageDraw.Draw(sheet).rectangle((0, 0, size[0] - 1, size[1] - 1), outline="#BBBBBB")
    top = gap
    for row, height in zip(tiles, heights, strict=True):
        left = gap
        for tile, width in zip(row, widths, strict=False):
            sheet.paste(tile, (left, top))
            left += width + gap
        top += height + gap
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")


def _tiles(row: Sequence[tuple[str, NDArray[np.uint8]]]) -> list[Any]:
    """The tiles of one row, titles of few lines filled up so that all images start alike."""
    most = max(title.count("\n") for title, _ in row)
    return [_tile("\n" * (most - title.count("\n")) + title, array) for title, array in row]


def _tile(title: str, array: NDArray[np.uint8]) -> Any:
    """The image with its title above it, as wide as the wider of the two."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(array)
    font = ImageFont.load_default(size=14)
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text_width = draw.multiline_textbbox((0, 0), title, font=font)[2]
    line = math.ceil(draw.textbbox((0, 0), "Ag", font=font)[3]) + 4  # whatever the letters are
    band = line * (title.count("\n") + 1) + 2
    width = max(image.width, math.ceil(text_width))
    tile = Image.new("RGB", (width, image.height + band), "white")
    ImageDraw.Draw(tile).multiline_text((0, 0), title, fill="black", font=font)
    tile.paste(image, (0, band))
    return tile
