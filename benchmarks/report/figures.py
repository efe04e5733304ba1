"""The report's figures from CSVs, into Image4md/: training, search, priors, orders, any rate.

`python -m benchmarks.report.figures` draws each of `FIGURES`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from benchmarks.report.markdown import read
from evaluation.plots import AXES, IMAGES, drawing, style_of
from models.presets import CHANNELS, short

LMBDA = 0.013  # of the search by effort: the one with the most efforts
EFFORT = 200  # of the curves with a search: the most steps that all points have
SHOWN = 45  # percent above the least loss of a panel
FIRST = 0.6  # 1e15 MACs: where the axes begin
SEEDS = ("#0072B2", "#D55E00", "#009E73")  # colours
STAR = {"marker": "*", "markersize": 11, "markeredgecolor": "black", "linestyle": "", "zorder": 3}


def draw_compute(figure: Any, rows: pd.DataFrame) -> None:
    """A panel for each lambda: every run's losses at the cost of its whole lineage."""
    panels = figure.subplots(2, 2, sharey=True).flat
    for axes, (lmbda, own) in zip(panels, rows.groupby("lmbda"), strict=True):
        above = own.assign(val_loss=100 * (own["val_loss"] / own["val_loss"].min() - 1))
        for _, run in above.groupby("run", sort=False):
            draw_run(axes, run)
        shown = above.query("val_loss < @SHOWN and lineage_petamacs > @FIRST")["lineage_petamacs"]
        axes.set(title=f"lambda {lmbda}", xlabel="compute of the lineage (1e15 MACs)", xscale="log",
                 ylabel="loss above the panel's least (%)", ylim=(-2, SHOWN),
                 xlim=(0.8 * shown.min(), 1.25 * shown.max()))  # fmt: skip
        plain_ticks(axes.xaxis)
    named = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    models = [label for label in named if label.endswith(")")] + ["final checkpoint"]
    figure.legend([named[label] for label in models], models, loc="outside lower center",
                  ncols=4, fontsize=9)  # fmt: skip


def draw_run(axes: Any, rows: pd.DataFrame) -> None:
    """The losses of a run: open markers for the wide transforms, a star at a final checkpoint."""
    model, N, M = rows[["model", "N", "M"]].iloc[0]
    fill = "none" if CHANNELS[model]["high"] == (N, M) else "full"
    look = style_of(model) | {"linewidth": 1.2, "markersize": 4, "fillstyle": fill}
    place, loss = rows["lineage_petamacs"], rows["val_loss"]
    axes.plot(place, loss, label=f"{short(model)} ({N}, {M})", **look)
    final = rows["checkpoint"] == "final"
    if final.any():
        axes.plot(place[final], loss[final], label="final checkpoint", color=look["color"], **STAR)


def plain_ticks(*shown: Any) -> None:
    """Plain numbers at round places of logarithmic axes (matplotlib's Axis)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    for axis in shown:
        low, high = axis.get_view_interval()
        wide = high > 5 * low
        axis.set_major_locator(
            LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
        )
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_locator(NullLocator())


def draw_search(figure: Any, rows: pd.DataFrame) -> None:
    """The curves with and without a search, and the gain against its price."""
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
    right.set(title=f"lambda {LMBDA}; numbers: steps", xscale="log",
              ylim=(0, -1.1 * rows["loss_percent"].min()), xlabel="seconds of an image of 768x512",
              ylabel="loss below that without a search (%)")  # fmt: skip
    plain_ticks(right.xaxis)


def draw_priors(figure: Any, rows: pd.DataFrame) -> None:
    """Rate of each prior against the scale hyperprior: a mark a seed, the interval over images."""
    longest = rows.groupby("lmbda")["steps"].transform("max")
    rows = rows[rows["steps"] == longest].groupby("lmbda")
    panels = list(figure.subplots(1, len(rows), sharey=True, squeeze=False).flat)
    for axes, (lmbda, own) in zip(panels, rows, strict=True):
        priors, seeds = list(own["prior"].unique()), sorted(own["seed"].unique())
        for seed, colour in zip(seeds, SEEDS, strict=False):
            one = own[own["seed"] == seed]
            mean = one["rate_against_scale_percent"]
            errors = mean - one["low_percent"], one["high_percent"] - mean
            shift = (seeds.index(seed) - (len(seeds) - 1) / 2) / 6
            place = [priors.index(prior) + shift for prior in one["prior"]]
            axes.errorbar(place, mean, errors, fmt="o", color=colour, capsize=3,
                          label=f"seed {seed}")  # fmt: skip
        axes.axhline(0, color="#555555", linewidth=0.8)
        axes.grid(visible=False, axis="x")
        axes.set_xticks(range(len(priors)), [prior.replace(" ", "\n", 1) for prior in priors])
        axes.set(
            title=f"lambda {lmbda}, {own['steps'].iloc[0]} steps", xlim=(-0.6, len(priors) - 0.4)
        )
    panels[0].set_ylabel("rate against the scale hyperprior (%)")
    panels[0].legend()


def draw_any_rate(figure: Any, rows: pd.DataFrame) -> None:
    """For each model the four checkpoints, and the curves by gains of all four and of one."""
    panels = figure.subplots(2, 2, sharey=True).flat
    for axes, (model, own) in zip(panels, rows.groupby("model", sort=False), strict=True):
        four, one = own[own["checkpoints"] > 1], own[own["checkpoints"] == 1]
        for label, curve, look in (
            ("checkpoints", four[four["gain"] == 1], {"linestyle": ""}),
            ("all four, with gains", four, {"marker": ""}),
            (f"lambda {LMBDA} alone, with gains", one, {"marker": "", "linestyle": "--"}),
        ):
            look = style_of(model) | {"linewidth": 1.2} | look
            axes.plot(curve["bpp"], curve["psnr"], label=label, **look)
        axes.set(title=short(model), xlabel="rate (bits per pixel)", ylabel=AXES["psnr"])
        axes.legend(loc="lower right", fontsize=9)


def draw_orders(figure: Any, rows: pd.DataFrame) -> None:
    """Entropy decoding by coding order: seconds a megapixel against the size, steps as numbers."""
    axes = figure.subplots()
    for order, own in rows.groupby("order", sort=False):
        look = style_of(own["model"].iloc[0]) | ({"marker": "x"} if order == "raster" else {})
        axes.plot(own["megapixels"], own["seconds_per_megapixel"], label=order, **look)
        for _, row in own.iterrows():
            steps, point = f"{row['steps']:,}", tuple(row[["megapixels", "seconds_per_megapixel"]])
            place = (0, -14) if order == "checkerboard" else (0, 7)  # points
            axes.annotate(steps, point, place, textcoords="offset points", ha="center")
    axes.set(title="entropy decoding; numbers: steps", xlabel="megapixels", xscale="log",
             ylabel="seconds a megapixel", yscale="log", ylim=(0.6, 20))  # fmt: skip
    axes.legend()
    plain_ticks(axes.xaxis, axes.yaxis)


FIGURES = {  # name: size in inches, CSV, function
    "training_curves": ((10, 7.6), "compute", draw_compute),
    "search_gain": ((11, 4.4), "search", draw_search),
    "priors": ((10, 3.6), "priors", draw_priors),
    "orders": ((6.4, 3.4), "orders", draw_orders),
    "any_rate": ((9.6, 6.4), "any_rate", draw_any_rate),
}


def main() -> None:
    """Draw all. DataError for a CSV that is missing."""
    for name, (size, csv, draw) in FIGURES.items():
        with drawing(IMAGES / f"{name}.png", size) as figure:
            draw(figure, read(csv))


if __name__ == "__main__":
    main()
