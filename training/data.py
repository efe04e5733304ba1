"""Training data: folders of images in the usual layouts, and crops that depend on a seed alone.

    images = open_dataset("data/train", "train", min_side=256)
    print(images.report())
    training, validation = held_out(images, 24)
    crops = RandomCrops(training, 256, seed=0)
    x = crops.batch(step, 64)           # (64, 3, 256, 256) in [0, 1], the same for ever

The crop with number i is a function of (seed, i) and the images, so a run that resumes at a step
sees what an uninterrupted one would have seen, and K processes share a batch without talking.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.errors import ImageError
from models.images import image_size, list_images, natural_order, read_image, sample_photographs

SPLITS = ("train", "test")
MEMORY = 2 * 2**30  # bytes of decoded images to hold: 716 megapixels
MAX_DRAWS = 100  # unreadable images in a row before a crop is given up
EXAMPLES = 3  # skipped files that a report names, of each kind

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One image, or the frames of one clip, of which a random one is taken."""

    name: str  # unique in its data set and independent of where that lies: 'a/b.png'
    height: int  # pixels
    width: int
    folder: Path = Path()
    files: tuple[str, ...] = ()  # in `folder`; several for a clip
    pixels: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def frames(self) -> int:
        """How many there are to choose from; 1 for an image."""
        return len(self.files) or 1

    def read(self, frame: int = 0) -> np.ndarray:
        """uint8 (H, W, 3). ImageError if the file cannot be read."""
        if self.pixels is not None:
            return self.pixels
        return read_image(self.folder / self.files[frame])


@dataclass(frozen=True)
class Skipped:
    """A file that was found and is not used."""

    name: str
    kind: str  # a few words, the same for all files that are skipped for this reason
    reason: str  # a sentence


@dataclass(frozen=True)
class ImageSet:
    """The images of a data set in a fixed order, and what was left out of it."""

    title: str  # where they are, and in what layout
    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def pixels(self) -> int:
        """Pixels of all images together; of a clip, those of one frame."""
        return sum(s.height * s.width for s in self.sources)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over names and sizes, for a run's provenance."""
        text = "\n".join(f"{s.name} {s.height} {s.width} {s.frames}" for s in self.sources)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def report(self) -> str:
        """What was found and what was skipped and why, in one line or a few."""
        frames = sum(s.frames for s in self.sources)
        clips = f" as clips of {frames:,} frames" if frames > len(self) else ""
        number = "1 image" if len(self) == 1 else f"{len(self):,} images"
        found = f"{self.title}: {number}{clips}, {self.pixels / 1e6:,.1f} megapixels"
        if not self.skipped:
            return found
        counts = Counter(s.kind for s in self.skipped)
        parts = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        lines = [f"{found}; skipped {len(self.skipped):,}: {parts}"]
        for kind, count in counts.items():
            lines += [f"  {s.reason}" for s in self.skipped if s.kind == kind][:EXAMPLES]
            lines += [f"  ... and {count - EXAMPLES:,} more {kind}"] if count > EXAMPLES else []
        return "\n".join(lines)


def open_dataset(root: str | Path | None, split: str = "train", min_side: int = 1) -> ImageSet:
    """Find the images of a data set. `split` is 'train' or 'test'; layouts, the first that fits:

    * None: the photographs that come with scikit-image, for both splits;
    * Vimeo-90k: `sequences/` and `sep_trainlist.txt` or `tri_trainlist.txt` (and `...testlist`);
    * `train/` and `test/`, as for torchvision's ImageFolder, each flat or nested;
    * any other folder: all images in it and in the folders inside, for both splits.

    Only headers are read. Files that are no usable image, and images with a side shorter than
    `min_side` pixels, are skipped and listed in the result.

    Errors: `ImageError` if nothing usable is left; `ValueError` for another split.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; choose one of: {', '.join(SPLITS)}.")
    if root is None:
        title = "built-in sample photographs"
        found, skipped = _samples()
    elif (Path(root) / "sequences").is_dir() and any(Path(root).glob("*_t*list.txt")):
        title = f"{root} (Vimeo-90k, {split})"
        found, skipped = _vimeo(Path(root), split)
    else:
        folder = _split_folder(Path(root), split)
        title = str(folder)
        found, skipped = _folder(folder)
    large = [s for s in found if min(s.height, s.width) >= min_side]
    skipped += [_too_small(s, min_side) for s in found if min(s.height, s.width) < min_side]
    result = ImageSet(title, tuple(large), tuple(skipped))
    if not large:
        raise ImageError(f"There is no usable image. {result.report()}")
    return result


def _too_small(source: Source, side: int) -> Skipped:
    size = f"{source.width}x{source.height}"
    reason = f"{source.name} is {size}, smaller than the crop of {side}x{side}."
    return Skipped(source.name, f"smaller than {side}x{side}", reason)


def _samples() -> tuple[list[Source], list[Skipped]]:
    photographs = sample_photographs()
    return [Source(name, p.shape[0], p.shape[1], pixels=p) for name, p in photographs], []


def _split_folder(root: Path, split: str) -> Path:
    """`root/split` if the folder is divided like that, otherwise `root` itself."""
    present = [s for s in SPLITS if (root / s).is_dir()]
    if present and split not in present:
        # The other half must not be taken by mistake: test images are not to be trained on.
        raise ImageError(
            f"{root} has a folder {present[0]}/ but none named {split}/; add it, or name a folder "
            "of images."
        )
    return root / split if present else root


def _folder(folder: Path) -> tuple[list[Source], list[Skipped]]:
    found: list[Source] = []
    skipped: list[Skipped] = []
    for path in list_images(folder, recursive=True):
        name = path.relative_to(folder).as_posix()
        try:
            found.append(Source(name, *image_size(path), folder, (name,)))
        except ImageError as error:
            skipped.append(Skipped(name, "unreadable", str(error)))
    return found, skipped


def _vimeo(root: Path, split: str) -> tuple[list[Source], list[Skipped]]:
    """The clips of a list file ('00001/0266' in each line); all frames have the first's size.

    Xue et al. 2019, "Video Enhancement with Task-Oriented Flow": septuplets or triplets.
    """
    lists = [root / f"{kind}_{split}list.txt" for kind in ("sep", "tri")]
    present = [path for path in lists if path.is_file()]
    if not present:
        raise ImageError(f"{root} has neither {lists[0].name} nor {lists[1].name}; add the list.")
    found: list[Source] = []
    skipped: list[Skipped] = []
    names = {line.strip() for line in present[0].read_text(encoding="utf-8").splitlines()} - {""}
    for name in sorted(names):
        folder = root / "sequences" / name
        try:
            files = [f for f in os.listdir(folder) if f.startswith("im") and f.endswith(".png")]
            if not files:
                raise ImageError(f"{folder} holds no frames (im1.png, ...).")
            frames = tuple(sorted(files, key=natural_order))
            found.append(Source(name, *image_size(folder / frames[0]), folder, frames))
        except ImageError as error:
            skipped.append(Skipped(name, "unreadable", str(error)))
        except OSError as error:
            reason = f"{folder} is in {present[0].name} but cannot be listed: {error.strerror}."
            skipped.append(Skipped(name, "missing", reason))
    return found, skipped


def held_out(images: ImageSet, n: int) -> tuple[ImageSet, ImageSet]:
    """Split off n images for validation: (the rest, the n), each in its former order.

    Those with the smallest SHA-256 of their names are taken, so the choice is stable when the
    folder moves, and changes little when images are added.

    Errors: `ImageError` unless 0 <= n < number of images.
    """
    if not 0 <= n < len(images):
        raise ImageError(
            f"{images.title} has {len(images):,} images; {n:,} cannot be held out of them."
        )

    def digest(source: Source) -> bytes:
        return hashlib.sha256(source.name.encode("utf-8", "surrogateescape")).digest()

    chosen = {s.name for s in sorted(images.sources, key=digest)[:n]}
    rest = tuple(s for s in images.sources if s.name not in chosen)
    out = tuple(s for s in images.sources if s.name in chosen)
    return (
        replace(images, sources=rest),
        ImageSet(f"held out of {images.title}", out),
    )


class RandomCrops(Dataset):
    """Random square crops: uint8 (3, crop, crop), half of them mirrored.

    An image is drawn with a probability proportional to its area, so that each pixel counts the
    same however the images are cut up; of a clip, any frame. Crop i depends on (seed, i) and the
    images only, and there are infinitely many; as a map-style data set it has `length` (by
    default the number of images).

    Decoded images stay in memory up to `memory` bytes; beyond that, those used longest ago are
    decoded again when needed. An image that turns out to be unreadable is logged once, kept in
    `unreadable`, and another is drawn in its place. Safe to use from several threads.

    Errors: `ImageError` if an image is smaller than a crop, or if none can be read.
    """

    def __init__(
        self,
        images: ImageSet,
        crop: int,
        seed: int = 0,
        length: int | None = None,
        memory: int = MEMORY,
    ):
        if not images.sources:
            raise ImageError(f"{images.title}: no images to take crops of.")
        _check_crop(images, crop)
        self.images, self.crop, self.seed = images, crop, seed
        self.length = len(images) if length is None else length
        areas = [float(s.height * s.width) for s in images.sources]
        self.cumulative = np.cumsum(areas)
        self.unreadable: dict[str, str] = {}  # name and frame -> sentence
        self.cache = _Cache(memory)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Tensor:
        """Crop i, uint8 (3, crop, crop); IndexError beyond the length."""
        if not 0 <= i < self.length:
            raise IndexError(i)
        return torch.from_numpy(self._crop(i).transpose(2, 0, 1).copy())

    def batch(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """The crops of a training step: float32 (B, 3, crop, crop) in [0, 1].

        `batch_size` counts all processes together: step s has the crops s * batch_size to
        (s + 1) * batch_size - 1, and process `rank` of `world_size` gets every world_size-th of
        them. K processes see what one process sees. Not bounded by the length.
        """
        first = step * batch_size
        numbers = range(first + rank, first + batch_size, world_size)
        rows = np.empty((len(numbers), self.crop, self.crop, 3), np.uint8)
        for row, i in zip(rows, numbers, strict=True):
            row[:] = self._crop(i)
        return _as_float(rows)

    def _crop(self, i: int) -> np.ndarray:
        """Crop i as a uint8 view (crop, crop, 3) of a decoded image."""
        problem = ""
        for draw in range(MAX_DRAWS):
            # Which image, which frame, from which row and column, mirrored or not.
            where, frame, top, left, mirror = np.random.default_rng((self.seed, i, draw)).random(5)
            index = np.searchsorted(self.cumulative, where * self.cumulative[-1], side="right")
            source = self.images.sources[index]
            try:
                pixels = self._pixels(int(index), int(frame * source.frames))
            except ImageError as error:
                problem = str(error)
                continue
            height, width = pixels.shape[:2]
            y, x = int(top * (height - self.crop + 1)), int(left * (width - self.crop + 1))
            view = pixels[y : y + self.crop, x : x + self.crop]
            return view[:, ::-1] if mirror < 0.5 else view
        raise ImageError(f"{MAX_DRAWS} images in a row could not be read; the last: {problem}")

    def _pixels(self, index: int, frame: int) -> np.ndarray:
        """A decoded image, uint8 (H, W, 3), at least as large as a crop. ImageError."""
        source = self.images.sources[index]
        key = f"{source.name} {frame}"
        if key in self.unreadable:
            raise ImageError(self.unreadable[key])
        pixels = self.cache.get((index, frame))
        if pixels is None:
            try:
                pixels = source.read(frame)
                if min(pixels.shape[:2]) < self.crop:  # changed since its header was read
                    raise ImageError(f"{source.name} has become smaller than the crop.")
            except ImageError as error:
                self.unreadable[key] = str(error)
                log.warning("Skipped (%d so far): %s", len(self.unreadable), error)
                raise
            self.cache.put((index, frame), pixels)
        return pixels


class CentreCrops(Dataset):
    """The centre of each image, uint8 (3, crop, crop); of a clip, its middle frame.

    Errors: `ImageError` if an image is smaller than a crop; when indexed, if it is unreadable.
    """

    def __init__(self, images: ImageSet, crop: int):
        _check_crop(images, crop)
        self.images, self.crop = images, crop

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        source = self.images.sources[i]
        pixels = source.read(source.frames // 2)
        height, width = pixels.shape[:2]
        if min(height, width) < self.crop:
            raise ImageError(f"{source.name} has become smaller than the crop.")
        y, x = (height - self.crop) // 2, (width - self.crop) // 2
        view = pixels[y : y + self.crop, x : x + self.crop]
        return torch.from_numpy(view.transpose(2, 0, 1).copy())

    def tensors(self) -> list[Tensor]:
        """All that can be read, each float32 (3, crop, crop) in [0, 1]; the others are logged.

        Errors: `ImageError` if there are images and none can be read.
        """
        readable = []
        problem = ""
        for i in range(len(self)):
            try:
                readable.append(self[i].float().div_(255))
            except ImageError as error:
                problem = str(error)
                log.warning("Skipped: %s", error)
        if problem and not readable:
            raise ImageError(f"No image of {self.images.title} can be read; the last: {problem}")
        return readable


def _check_crop(images: ImageSet, crop: int) -> None:
    for source in images.sources:
        if min(source.height, source.width) < crop:
            raise ImageError(_too_small(source, crop).reason)


def _as_float(rows: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [0, 1], contiguous."""
    planes = torch.from_numpy(rows).permute(0, 3, 1, 2)
    return planes.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


class _Cache:
    """Arrays up to a number of bytes; the one used longest ago goes first. Thread-safe."""

    def __init__(self, limit: int):
        self.limit, self.size = limit, 0
        self.arrays: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: tuple) -> np.ndarray | None:
        with self.lock:
            if key in self.arrays:
                self.arrays.move_to_end(key)
            return self.arrays.get(key)

    def put(self, key: tuple, array: np.ndarray) -> None:
        with self.lock:
            if key in self.arrays or array.nbytes > self.limit:
                return
            self.arrays[key] = array
            self.size += array.nbytes
            while self.size > self.limit:
                self.size -= self.arrays.popitem(last=False)[1].nbytes

    def __getstate__(self) -> dict:
        """Worker processes that are spawned start with an empty cache."""
        return {"limit": self.limit}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["limit"])  # type: ignore[misc]
