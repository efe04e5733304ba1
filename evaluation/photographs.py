"""What it is measured on: a folder of images, or the built-in photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.cli import note
from models.datasets import list_images, sample_photographs
from models.errors import ImageError
from models.files import printable
from models.images import read_image
from models.presets import MAX_PIXELS

KODAK = Path(__file__).parents[1] / "statistics" / "kodak.sha256"


@dataclass(frozen=True)
class Photograph:
    """A test image that was seen to be readable.

    name: its path inside the folder, printable; stem: of its outputs, the same without suffix where
    that is unique.
    """

    name: str
    stem: str
    width: int
    height: int
    path: Path | None
    pixels: np.ndarray | None = field(default=None, repr=False, compare=False)

    def read(self) -> np.ndarray:
        """uint8 (H, W, 3); ImageError if the file has become unreadable."""
        if self.path is not None:
            return read_image(self.path, self.width * self.height)  # larger: it has changed since
        return np.asarray(self.pixels)


def open_photographs(
    place: str | Path | None, max_pixels: int = MAX_PIXELS, unreadable: list[str] | None = None
) -> list[Photograph]:
    """Every image of a folder and of those inside it, a single file, or (None) the built-in ones.

    Each is decoded once now, so that a broken one is found before hours of work and not after them.
    A list `unreadable` takes a sentence on each that cannot be read or has more than `max_pixels`;
    without a list the first of them is an error, as it is when none is left.
    ImageError that names it, or says that there is no image.
    """
    if place is None:
        samples = sample_photographs()
        return [Photograph(n, n, p.shape[1], p.shape[0], None, p) for n, p in samples]
    place = Path(place)
    folder = place.parent if place.is_file() else place
    paths = [place] if place.is_file() else list_images(place, recursive=True)
    stems = [path.with_suffix("") for path in paths]
    photographs = []
    for path, stem in zip(paths, stems, strict=True):
        try:
            height, width = read_image(path, max_pixels, notice=note).shape[:2]
        except ImageError as error:
            if unreadable is None:
                raise
            unreadable.append(str(error))
            continue
        unique = stem if stems.count(stem) == 1 else path
        name, output = (printable(p.relative_to(folder).as_posix()) for p in (path, unique))
        photographs.append(Photograph(name, output, width, height, path))
    if unreadable and not photographs:
        raise ImageError(unreadable[0])
    return photographs


def is_kodak(photographs: Sequence[Photograph]) -> bool:
    """Whether these are the study's images: the 24 files with the digests of kodak.sha256."""
    listed = {line.split()[0] for line in KODAK.read_text("utf-8").splitlines()}
    paths = [photograph.path for photograph in photographs]
    if len(paths) != len(listed) or None in paths:
        return False
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path} == listed


def dataset_name(place: Path | None) -> str:
    """What a data set is called in tables and folders: the last part of its path."""
    if place is None:
        return "built-in photographs"
    return printable(place.stem if place.is_file() else place.resolve().name)
