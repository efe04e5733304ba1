"""Figures of the training: held-out loss against compute, and the comparison of optimisers.

    python -m benchmarks.report.training_curves

Reads statistics/compute.csv and optimizers.csv; draws Image4md/training_curves.png and
Image4md/training_optimizers.png.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from benchmarks.report.markdown import read
from evaluation.plots import IMAGES, drawing, style_of
from models.presets import CHANNELS, short

DASHES = {"Adam": ":", "SOAP": "--", "Muon": "-"}
SHOWN = 1.5  # losses up to so many times the least of a panel
STAR = {"marker": "*", "markersize": 11, "markeredgecolor": "black", "linestyle": "", "zorder": 3}


def draw_compute(figure: Any, rows: pd.DataFrame) -> None:
    """A panel for each lambda: every run's losses at the cost of its whole lineage."""
    panels = figure.subplots(2, 2).flat
    for axes, (lmbda, own) in zip(panels, rows.groupby("lmbda"), strict=True):
        for _, run in own.groupby("run", sort=False):
            draw_run(axes, run)
        least = own["val_loss"].min()
        shown = own.query("val_loss < @SHOWN * @least")["lineage_petamacs"]
        axes.set(title=f"lambda {lmbda}", xlabel="compute of the lineage (1e15 MACs)",
                 xscale="log", xlim=(0.9 * shown.min(), 1.25 * shown.max()),
                 yscale="log", ylim=(0.97 * least, SHOWN * least))  # fmt: skip
        plain_ticks(axes.xaxis, axes.yaxis)
        axes.set_ylabel("loss on held-out photographs")
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


def draw_optimizers(figure: Any, rows: pd.DataFrame) -> None:
    """The comparison of optimisers, against steps and against seconds."""
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column in zip(panels, ("step", "seconds"), strict=True):
        for run, own in rows.groupby("run", sort=False):
            name, rate = run.split()
            label = f"{name}, rate {rate}"
            axes.plot(own[column], own["val_loss"], DASHES[name], marker=".", label=label)
        axes.set(xlabel=column, yscale="log")
    panels[0].set_ylabel("loss on held-out images")
    panels[0].legend()


def main() -> None:
    """Draw both figures. DataError for a CSV that is missing."""
    with drawing(IMAGES / "training_curves.png", (10, 7.6)) as figure:
        draw_compute(figure, read("compute"))
    with drawing(IMAGES / "training_optimizers.png", (8, 3.2)) as figure:
        draw_optimizers(figure, read("optimizers"))


if __name__ == "__main__":
    main()
