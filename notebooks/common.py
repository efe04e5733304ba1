"""What the notebooks share: where they run, where their figures go, one look."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# The look of `models.plots`: white panels that read the same in a light and a dark page.
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


def start() -> None:
    """Work from the repository's root, as its commands do, and draw in the study's look."""
    import matplotlib as mpl

    os.chdir(ROOT)
    mpl.rcParams.update(STYLE)


def output(folder: str, name: str) -> Path:
    """Where a file goes: <folder>/<name>, below the variable NOTEBOOK_OUTPUTS if that is set."""
    path = Path(os.environ.get("NOTEBOOK_OUTPUTS", "."), folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save(figure: Any, name: str) -> None:
    """Write a Matplotlib figure to Image4md/<name>.png; the same figure gives the same file."""
    from models.files import atomic_write

    with atomic_write(output("Image4md", f"{name}.png")) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
