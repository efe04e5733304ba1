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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.curves import finite_points
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
OTHER_LOOK = ("#117733", "<")

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
Line = tuple[str, Iterable[float], Iterable[float], Style]  # label, bpp, quality, style


def style_of(codec: str, source: str = "ours") -> dict[str, Any]:
    """Matplotlib's line properties for a codec: its fixed colour and marker, its source's line.

    `codec` is a model's name, a classical codec's, or a name of the reference table such as
    "mbt2018" or "paper-mbt2018"; any other name gets a spare look. `source` is one of
    `LINES`: "original" is the study that is reproduced, "zoo" CompressAI.
    """
    name = codec.removeprefix("paper-")
    name = STUDIED_AS.get(name, name)
    color, marker = LOOKS.get(name, OTHER_LOOK)
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
    curves = [(label, finite_points(bpp, q, metric), style) for label, bpp, q, style in lines]
    points = [point for _, own, _ in curves for point in own]
    inside = [db for bpp, db in points if bpp <= max_bpp]
    if not inside:
        raise ValueError("There is no point to draw in the rate-distortion figure.")
    with drawing(path, (9.6, 5.6), **{"font.size": 11, "axes.titlesize": "large"}) as figure:
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


@contextmanager
def drawing(path: str | Path, size: tuple[float, float], **style: Any) -> Iterator[Any]:
    """A Matplotlib figure of `size` inches, written to `path` when the block ends; `style`
    overrides `STYLE`."""
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
    """Write a PNG with images in a grid, each under its title of two lines at most.

    `rows` holds lists, of any length, of (title, uint8 array (H, W, 3)), typically an original and
    its reconstructions. Images are shown pixel by pixel, since scaling hides artefacts: pass crops
    of large ones.
    """
    from PIL import Image, ImageDraw, ImageFont

    gap, band, font = 12, 48, ImageFont.load_default(size=14)  # a band holds two lines of a title
    shapes = [array.shape for row in rows for _, array in row]
    width = gap + max(300, *(shape[1] for shape in shapes))
    height = gap + band + max(shape[0] for shape in shapes)
    size = (gap + width * max(map(len, rows)), gap + height * len(rows))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for top, row in zip(range(gap, size[1], height), rows, strict=False):
        for left, (title, array) in zip(range(gap, size[0], width), row, strict=False):
            place = (left, top + band - 6)
            draw.multiline_text(place, title, fill="black", font=font, anchor="ld")
            sheet.paste(Image.fromarray(array), (left, top + band))
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")
