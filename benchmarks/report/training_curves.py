"""Figures of the training: held-out loss against compute, and the comparison of optimisers.

    python -m benchmarks.report.training_curves

Reads statistics/compute.csv, compute_fits.csv and optimizers.csv; draws
Image4md/training_curves.png and Image4md/training_optimizers.png.
"""

from __future__ import annotations

from itertools import groupby, zip_longest
from typing import Any

import numpy as np

from benchmarks.report.compute import law
from benchmarks.report.tables import rows_of
from evaluation.plots import IMAGES, drawing, style_of
from models.presets import CHANNELS, short

DASHES = {"Adam": ":", "SOAP": "--", "Muon": "-"}
SHOWN = 1.5  # losses up to so many times the least of a panel
BEYOND = 2  # a fit is drawn to so many times the compute of its last point
PANEL = 5, 3.8  # inches, width and height
ACROSS = 2  # panels
FINAL, ZOO = "final checkpoint", "dashed: where CompressAI's zoo would be met"
STAR = {"marker": "*", "markersize": 11}


def draw_compute(figure: Any) -> None:
    """A panel for each lambda: every run's losses at the cost of its whole lineage."""
    rows = rows_of("compute")
    lambdas = sorted({row["lmbda"] for row in rows}, key=float)
    panels = figure.subplots(-(-len(lambdas) // ACROSS), ACROSS, squeeze=False).flat
    for axes, lmbda in zip_longest(panels, lambdas):
        if lmbda is None:
            axes.remove()
            continue
        own = [row for row in rows if row["lmbda"] == lmbda]
        fits = [row for row in rows_of("compute_fits") if row["lmbda"] == lmbda]
        for _, run in groupby(own, lambda row: row["run"]):
            draw_run(axes, list(run))
        laws = [line for row in fits if (line := draw_fit(axes, row))]
        if laws:
            axes.legend(handles=laws, loc="upper right", fontsize=8)
        least = min(float(row["val_loss"]) for row in own)
        shown = [float(r["lineage_petamacs"]) for r in own if float(r["val_loss"]) < SHOWN * least]
        low = min([least, *(float(row["target"]) for row in fits if row["target"])])
        axes.set(title=f"lambda {lmbda}", xlabel="compute of the lineage (1e15 MACs)",
                 xscale="log", xlim=(0.9 * min(shown), 1.25 * max(shown)),
                 yscale="log", ylim=(0.97 * low, SHOWN * least))  # fmt: skip
        plain_ticks(axes.xaxis, axes.yaxis)
        axes.set_ylabel("loss on held-out photographs")
    named = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    models = [label for label in named if label.endswith(")") and label[0] not in "_L"]
    named = {label: named[label] for label in (*models, FINAL, ZOO) if label in named}
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, fontsize=9)


def draw_run(axes: Any, rows: list[dict[str, str]]) -> None:
    """The losses of a run: open markers for the wide transforms, a star at a final checkpoint."""
    model, width = rows[0]["model"], (int(rows[0]["N"]), int(rows[0]["M"]))
    wide = width == CHANNELS[model]["high"]
    look = style_of(model) | {"linewidth": 1.2, "markersize": 4}
    look["fillstyle"] = "none" if wide else "full"
    places = [float(row["lineage_petamacs"]) for row in rows]
    losses = [float(row["val_loss"]) for row in rows]
    axes.plot(places, losses, label=f"{short(model)} ({width[0]}, {width[1]})", **look)
    if rows[-1]["checkpoint"]:
        axes.plot(places[-1:], losses[-1:], linestyle="", zorder=3, label=FINAL,
                  **STAR, color=look["color"], markeredgecolor="black")  # fmt: skip


def draw_fit(axes: Any, row: dict[str, str]) -> Any:
    """The level of CompressAI's zoo, dashed, and the power law, dotted; returns the latter."""
    color = style_of(row["model"])["color"]
    if row["target"]:
        axes.axhline(float(row["target"]), color=color, linestyle="--", linewidth=1,
                     label=ZOO)  # fmt: skip
    if not row["b"]:
        return None
    ends = float(row["from_petamacs"]), BEYOND * float(row["to_petamacs"])
    places = np.geomspace(*ends, 100)
    a, b, floor = (float(row[name]) for name in ("a", "b", "floor"))
    span = float(row["to_petamacs"]) / float(row["from_petamacs"])
    label = f"L = {law(row)}\n({row['points']} points, a factor of {span:.1f} in compute)"
    (line,) = axes.plot(places, floor + a * places**-b, ":", color="black", label=label)
    return line


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


def draw_optimizers(figure: Any) -> None:
    """The comparison of optimisers, against steps and against seconds."""
    rows = rows_of("optimizers")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column in zip(panels, ("step", "seconds"), strict=True):
        for run in dict.fromkeys(r["run"] for r in rows):
            own = [r for r in rows if r["run"] == run]
            places = [float(r[column]) for r in own]
            losses = [float(r["val_loss"]) for r in own]
            name, rate = run.split()
            axes.plot(places, losses, DASHES[name], marker=".", label=f"{name}, rate {rate}")
        axes.set(xlabel=column, yscale="log")
    panels[0].set_ylabel("loss on held-out images")
    panels[0].legend()


def main() -> None:
    """Draw both figures; one without numbers is left out."""
    if rows := rows_of("compute"):
        down = -(-len({row["lmbda"] for row in rows}) // ACROSS)
        size = PANEL[0] * ACROSS, PANEL[1] * down
        with drawing(IMAGES / "training_curves.png", size) as figure:
            draw_compute(figure)
    if rows_of("optimizers"):
        with drawing(IMAGES / "training_optimizers.png", (8, 3.2)) as figure:
            draw_optimizers(figure)


if __name__ == "__main__":
    main()
