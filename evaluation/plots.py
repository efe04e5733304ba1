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
Line = tuple[str, ArrayLike, ArrayLike, Style]  # label, bpp, quality, style


def style_of(codec: str, source: str = "ours") -> dict[str, Any]:
    """Matplotlib's line properties for a codec: its fixed colour and marker, its source's line.

    `codec` is a model's name, a classical codec's, or a name of the reference table such as
    "mbt2018" or "paper-mbt2018"; any other name gets one of four spare looks. `source` is one of
    `LINES`: "original" is the study that is reproduced, "zoo" CompressAI.
    """
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
    a style from `style_of`. `metric` is one of `AXES`: "psnr", in dB, or "ms_ssim", from 0 to 1,
    which is drawn in dB. Points without a finite quality are left out. `max_bpp` cuts the axes.
    `ValueError` if there is no point to draw.
    """
    curves = [(label, _finite_points(bpp, q, metric), style) for label, bpp, q, style in lines]
    points = [point for _, own, _ in curves for point in own]
    inside = [db for bpp, db in points if bpp <= max_bpp]
    if not inside:
        raise ValueError("There is no point to draw in the rate-distortion figure.")
    with drawing(path, (9.6, 5.6), {"font.size": 11, "axes.titlesize": "large"}) as figure:
        axes = figure.subplots()
        for label, own, style in curves:
            if own:
                axes.plot(*zip(*own, strict=True), label=label, **style)
        axes.set(xlabel="rate (bits per pixel)", ylabel=AXES[metric], title=title)
        axes.set_xlim(0, min(max_bpp, 1.05 * max(bpp for bpp, _ in points)))
        if max_bpp < math.inf:
            margin = 0.04 * (max(inside) - min(inside)) or 1
            axes.set_ylim(min(inside) - margin, max(inside) + margin)
        figure.legend(loc="outside right upper", fontsize=9, handlelength=3.2)


def _finite_points(bpp: ArrayLike, quality: ArrayLike, metric: str) -> list[tuple[float, float]]:
    """(bpp, dB), sorted by rate."""
    points = sorted(zip(np.asarray(bpp, float), np.asarray(quality, float), strict=True))
    if metric == "ms_ssim":
        points = [(rate, ms_ssim_db(value)) for rate, value in points]
    return [point for point in points if all(map(math.isfinite, point))]


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
    """Write a figure as .svg or .png, alike each time."""
    import matplotlib as mpl

    suffix = Path(path).suffix.removeprefix(".")
    metadata = {"Date": None} if suffix == "svg" else {"Software": None}
    with atomic_write(path) as temporary, mpl.rc_context({"svg.hashsalt": "figure"}):
        figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)


def contact_sheet(
    rows: Sequence[Sequence[tuple[str, NDArray[np.uint8]]]], path: str | Path
) -> None:
    """Write a PNG with images in a grid, each under its title.

    `rows` holds lists, of any length, of (title, uint8 array (H, W, 3)), typically an original and
    its reconstructions. Images are shown pixel by pixel, since scaling hides artefacts: pass crops
    of large ones.
    """
    from PIL import Image, ImageDraw, ImageFont

    gap, font = 12, ImageFont.load_default(size=14)
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    tiles = [tile for row in rows for tile in row]
    boxes = [ruler.multiline_textbbox((0, 0), title, font=font) for title, _ in tiles]
    band = math.ceil(max(bottom for *_, bottom in boxes)) + 6
    width = gap + max(
        max(math.ceil(b[2]), a.shape[1]) for b, (_, a) in zip(boxes, tiles, strict=True)
    )
    height = gap + band + max(array.shape[0] for _, array in tiles)
    size = (gap + width * max(map(len, rows)), gap + height * len(rows))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((0, 0, size[0] - 1, size[1] - 1), outline="#BBBBBB")
    for top, row in zip(range(gap, size[1], height), rows, strict=False):
        for left, (title, array) in zip(range(gap, size[0], width), row, strict=False):
            place = (left, top + band - 6)
            draw.multiline_text(place, title, fill="black", font=font, anchor="ld")
            sheet.paste(Image.fromarray(array), (left, top + band))
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")
