"""Photographs to train on and to measure with: those of a folder, and those of scikit-image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from models.errors import ImageError

# What is looked for in a folder. Pillow goes by the content of a file, not by its name.
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tif", ".tiff", ".gif", ".avif", ".jp2",
)  # fmt: skip

# Photographs that lie inside scikit-image's wheel, in the public domain: by NASA, Stefan van der
# Walt (CC0), Rachel Michetti (CC0) and SpaceX.
SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")


def list_images(
    folder: str | Path, recursive: bool = False, suffixes: Sequence[str] = SUFFIXES
) -> list[Path]:
    """The image files of a folder by their suffixes, in natural order (kodim2 before kodim10).

    Hidden files are left out. `recursive` descends into the folders inside, links included.
    ImageError if the folder does not exist or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"The folder {folder} does not exist, or is not a folder.")
    files = _walk(folder) if recursive else folder.iterdir()
    images = [p for p in files if p.suffix.lower() in suffixes and p.name[0] != "." and p.is_file()]
    if not images:
        raise ImageError(f"There is no image in {folder} (looked for {', '.join(suffixes)}).")
    return sorted(images, key=lambda p: natural_order(p.relative_to(folder).as_posix()))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file under a folder, outside hidden folders; a loop of links ends."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [] if real in seen else [f for f in folders if not f.startswith(".")]
        if real not in seen:
            yield from (Path(root) / name for name in names)
        seen.add(real)


def natural_order(name: str) -> list[tuple[str, int]]:
    """Sort key in which digits count as numbers."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def sample_photographs() -> list[tuple[str, np.ndarray]]:
    """Name and pixels, uint8 (H, W, 3), of the photographs inside scikit-image's wheel.

    Of 0.14 to 0.27 megapixels each. ImageError if scikit-image is not installed.
    """
    try:
        from skimage import data  # an import of a second, which few callers need
    except ImportError:
        raise ImageError("Install scikit-image for its photographs, or name a folder.") from None
    return [(name, np.array(getattr(data, name)())) for name in SAMPLES]
