"""The figure of the encoder's search: curves with and without it, and the gain against its price.

    python -m benchmarks.report.search_gain

Reads statistics/search.csv; draws Image4md/search_gain.png.
"""

from __future__ import annotations

from benchmarks.report.markdown import read
from benchmarks.report.training_curves import plain_ticks
from evaluation.plots import AXES, IMAGES, drawing, style_of
from models.presets import short

LMBDA = 0.013  # of the right panel: the one with the most efforts
EFFORT = 200  # of the left panel: the most steps that all points have


def main() -> None:
    """Draw the figure. DataError without the CSV."""
    rows = read("search")
    with drawing(IMAGES / "search_gain.png", (11, 4.4)) as figure:
        left, right = figure.subplots(1, 2)
        for number, (model, own) in enumerate(rows.groupby("model", sort=False)):
            look = style_of(model) | {"linewidth": 1.2, "markersize": 4}
            searched = f", searched, {EFFORT} steps"
            for effort, line, words in ((0, "-", ""), (EFFORT, "--", searched)):
                curve = own[own["effort"] == effort].sort_values("bpp")
                left.plot(curve["bpp"], curve["psnr"], label=short(model) + words,
                          **look | {"linestyle": line})  # fmt: skip
            gain = own[(own["lmbda"] == LMBDA) & (own["effort"] > 0)]
            right.plot(gain["seconds"], -gain["loss_percent"], label=short(model), **look)
            place = (0, -13) if number % 2 else (0, 6)  # points: neighbours apart
            for _, row in gain.iterrows():
                point = row["seconds"], -row["loss_percent"]
                right.annotate(row["effort"], point, place, textcoords="offset points",
                               ha="center", size=8)  # fmt: skip
        left.set(xlabel="rate (bits per pixel)", ylabel=AXES["psnr"])
        left.legend(loc="lower right", fontsize=8)
        right.legend(loc="lower right", fontsize=8)
        right.set(title=f"lambda {LMBDA}; numbers: steps", xscale="log", ylim=(0, None),
                  xlabel="seconds of an image of 768x512",
                  ylabel="loss below that without a search (%)")  # fmt: skip
        plain_ticks(right.xaxis)


if __name__ == "__main__":
    main()
