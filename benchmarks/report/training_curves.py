"""Figures of the training: every checkpoint's curve, and the comparison of optimisers.

    python -m benchmarks.report.training_curves

Reads statistics/training/*.csv and statistics/optimizers.csv; draws
Image4md/training_curves.png and Image4md/training_optimizers.png.
"""

from __future__ import annotations

import re
from typing import Any

from benchmarks.report.tables import STATISTICS, rows_of
from evaluation.plots import IMAGES, drawing, style_of
from models.presets import STUDIED, short

CURVES = STATISTICS / "training"
SHADES = (1.0, 0.75, 0.5, 0.3)  # the first is the lowest lambda's
DASHES = {"adam": ":", "soap": "--", "muon": "-"}


def curves() -> dict[str, dict[float, list[dict[str, str]]]]:
    """Rows with a validation, by model and lambda."""
    found: dict[str, dict[float, list[dict[str, str]]]] = {}
    for path in sorted(CURVES.glob("*_lmbda_*.csv")):
        model, lmbda = re.fullmatch(r"(\w+)_lmbda_(.+)", path.stem).groups()
        rows = [row for row in rows_of(f"training/{path.stem}") if row["val_loss"]]
        found.setdefault(model, {})[float(lmbda)] = rows
    return found


def draw_curves(figure: Any) -> None:
    """A panel for each model: loss on held-out images against steps, a line for each lambda."""
    found = curves()
    panels = figure.subplots(1, len(STUDIED), sharey=True)
    for axes, model in zip(panels, STUDIED, strict=True):
        own = found.get(model, {})
        for shade, (lmbda, rows) in zip(SHADES, sorted(own.items()), strict=False):
            look = style_of(model) | {"alpha": shade, "markersize": 3, "linewidth": 1.3}
            steps = [int(row["step"]) for row in rows]
            axes.plot(steps, [float(r["val_loss"]) for r in rows], label=f"{lmbda:g}", **look)
        axes.set(title=short(model), xlabel="step", yscale="log")
        if own:
            axes.legend(title="lambda")
    panels[0].set_ylabel("loss on held-out images")


def draw_optimizers(figure: Any) -> None:
    """The comparison of optimisers, against steps and against seconds."""
    rows = rows_of("optimizers")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column in zip(panels, ("step", "seconds"), strict=True):
        for key in dict.fromkeys((r["optimizer"], r["lr"]) for r in rows):
            own = [r for r in rows if (r["optimizer"], r["lr"]) == key]
            places = [float(r[column]) for r in own]
            losses = [float(r["val_loss"]) for r in own]
            line = DASHES.get(key[0], "-.")
            axes.plot(places, losses, line, marker=".", label=f"{key[0]}, rate {key[1]}")
        axes.set(xlabel=column, yscale="log")
    panels[0].set_ylabel("loss on held-out images")
    panels[0].legend()


def main() -> None:
    """Draw both figures; one without numbers is left out."""
    if curves():
        with drawing(IMAGES / "training_curves.png", (11, 3.2)) as figure:
            draw_curves(figure)
    if rows_of("optimizers"):
        with drawing(IMAGES / "training_optimizers.png", (8, 3.2)) as figure:
            draw_optimizers(figure)


if __name__ == "__main__":
    main()
