"""What the notebooks share: where they run, where their figures go, one look."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def start() -> None:
    """Work from the repository's root, as its commands do, and draw in the study's look."""
    import matplotlib as mpl

    os.chdir(ROOT)
    from evaluation.plots import STYLE  # from the root: a notebook starts in its own folder

    mpl.rcParams.update(STYLE)


def quick(full: Any, less: Any) -> Any:
    """`full`, or `less` where NOTEBOOK_QUICK is set, as in the tests: steps to take, sizes."""
    return less if os.environ.get("NOTEBOOK_QUICK") else full


def figure_path(name: str) -> Path:
    """Where the figure <name>.png goes: outputs/notebooks, or the folder NOTEBOOK_FIGURES.

    `make figures` sets that to Image4md, the report's; reading a notebook leaves those alone.
    """
    folder = Path(os.environ.get("NOTEBOOK_FIGURES", "outputs/notebooks"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.png"


def save(figure: Any, name: str) -> None:
    """Write a Matplotlib figure to `figure_path`; the same figure gives the same file."""
    from evaluation.plots import save_figure

    save_figure(figure, figure_path(name))


def show(path: Path) -> None:
    """Display a picture that a function of the repository has written."""
    from IPython.display import Image, display

    display(Image(filename=str(path)))
