"""What the notebooks share: where they run, where their figures go, one look."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def start() -> None:
    """Work from the repository's root, as its commands do, and draw in the study's look."""
    import matplotlib as mpl

    os.chdir(ROOT)
    from evaluation.plots import STYLE  # from the root: a notebook starts in its own folder

    mpl.rcParams.update(STYLE)


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


def photograph(kodak: str, built_in: str) -> tuple[str, Any]:
    """(name, uint8 (H, W, 3)): the Kodak image in the folder KODAK_DIR, or a built-in photograph.

    `make kodak` gets the Kodak images and checks their SHA-256.
    """
    from models.datasets import sample_photographs
    from models.images import read_image

    folder = os.environ.get("KODAK_DIR")
    if folder:
        return kodak, read_image(Path(os.path.expanduser(folder)) / f"{kodak}.png")
    return built_in, dict(sample_photographs())[built_in]


def of_photograph(name: str) -> str:
    """The name of a figure that shows `photograph`: Kodak's do not replace the built-in ones."""
    return f"{name}_kodak" if os.environ.get("KODAK_DIR") else name


def trained(names: Sequence[str], lmbda: float) -> dict[str, Any]:
    """The trained codecs whose lambda is nearest, by name; says which models have none."""
    import math

    from models import checkpoint
    from models.errors import CheckpointError

    codecs = {}
    for name in names:
        try:
            paths = checkpoint.find(name)
        except CheckpointError:
            print(f"{name}: no checkpoint in ckpts/ yet; it is left out.")
            continue

        def distance(path: Path) -> float:
            return abs(math.log(checkpoint.read_metadata(path)["lmbda"] / lmbda))

        codecs[name] = checkpoint.load(min(paths, key=distance))
        if distance(min(paths, key=distance)) > 0.01:
            found = codecs[name].point.lmbda
            print(f"{name}: no checkpoint of lambda {lmbda:g}; {found:g} is used.")
    return codecs
