"""The figure of the encoder's search: curves with and without it, and the gain against its price.

    python -m benchmarks.report.search_gain

Reads statistics/search.csv; draws Image4md/search_gain.png.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from benchmarks.report.comparisons import searched_alike
from benchmarks.report.tables import rows_of
from benchmarks.report.training_curves import plain_ticks
from evaluation.plots import AXES, IMAGES, drawing, style_of
from models.presets import STUDIED, short

LMBDA = "0.013"  # of the right panel: the one with the most efforts


def draw_curve(axes: Any, rows: list[dict[str, str]]) -> None:
    """Rate and PSNR of one model at one effort, dashed if it is above 0."""
    if not rows:
        return
    model, effort = rows[0]["model"], rows[0]["effort"]
    line, words = ("-", "") if effort == "0" else ("--", f", searched, {effort} steps")
    look = style_of(model) | {"linestyle": line, "linewidth": 1.2, "markersize": 4}
    points = sorted((float(r["bpp"]), float(r["psnr"])) for r in rows)
    axes.plot(*zip(*points, strict=True), label=short(model) + words, **look)


def draw_gain(axes: Any, model: str, rows: list[dict[str, str]]) -> None:
    """By how much a search lowers a model's loss, against the seconds of an image."""
    own = [r for r in rows if r["lmbda"] == LMBDA and r["loss_percent"]]
    points = [(float(r["seconds"]), -float(r["loss_percent"])) for r in own]
    look = style_of(model) | {"linewidth": 1.2, "markersize": 4}
    axes.plot(*zip(*points, strict=True), label=short(model), **look)
    place = (0, -13) if STUDIED.index(model) % 2 else (0, 6)  # points: neighbours apart
    for point, row in zip(points, own, strict=True):
        axes.annotate(row["effort"], point, place, textcoords="offset points", ha="center", size=8)


def main() -> None:
    """Draw the figure; without numbers it is left out."""
    if not (rows := rows_of("search")):
        return
    alike = searched_alike()
    with drawing(IMAGES / "search_gain.png", (11, 4.4)) as figure:
        left, right = figure.subplots(1, 2)
        left.set(xlabel="rate (bits per pixel)", ylabel=AXES["psnr"])
        for model, group in groupby(rows, lambda row: row["model"]):
            own = list(group)
            draw_curve(left, [r for r in own if r["effort"] == "0"])
            draw_curve(left, [r for r in alike if r["model"] == model])
            draw_gain(right, model, own)
        left.legend(loc="lower right", fontsize=8)
        right.legend(loc="lower right", fontsize=8)
        right.set(title=f"lambda {LMBDA}; numbers: steps", xscale="log", ylim=(0, None),
                  xlabel="seconds of an image of 768x512",
                  ylabel="loss below that without a search (%)")  # fmt: skip
        plain_ticks(right.xaxis)


if __name__ == "__main__":
    main()
