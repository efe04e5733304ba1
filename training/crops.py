"""Square crops of images: random ones that depend on a seed alone, and centres for validation.

    crops = RandomCrops(images, 256, seed=0)
    x = crops.batch(step, 64)           # (64, 3, 256, 256) in [0, 1], the same for ever

The crop with number i is a function of (seed, i) and the images, so a run that resumes at a step
sees what an uninterrupted one would have seen, and K processes share a batch without talking.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from models.errors import ImageError
from training.data import ImageSet, too_small

MEMORY = 2 * 2**30  # bytes of decoded images to hold: 716 megapixels
MAX_DRAWS = 100  # unreadable images in a row before a crop is given up

log = logging.getLogger(__name__)


class RandomCrops:
    """Random square crops of images, half of them mirrored.

    An image is drawn with a probability proportional to its area, so that each pixel counts the
    same however the images are cut up; of a clip, any frame. Crop i depends on (seed, i) and the
    images only, and there are infinitely many.

    Decoded images stay in memory up to `memory` bytes; beyond that, those used longest ago are
    decoded again when needed. An image that turns out to be unreadable is logged once, kept in
    `unreadable`, and another is drawn in its place. Safe to use from several threads.

    Errors: `ImageError` if an image is smaller than a crop, or if none can be read.
    """

    scale = 255  # of the stored values
    grid = 1  # crops begin at its multiples
    mirrors = True
    views = 1  # that are kept of every frame

    def __init__(self, images: ImageSet, crop: int, seed: int = 0, memory: int = MEMORY):
        if not images.sources:
            raise ImageError(f"{images.title}: no images to take crops of.")
        _check_crop(images, crop)
        self.images, self.crop, self.seed = images, crop, seed
        areas = [float(s.height * s.width) for s in images.sources]
        self.cumulative = np.cumsum(areas)
        self.unreadable: dict[str, str] = {}  # name and frame -> sentence
        self.cache = _Cache(memory)

    def batch(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """The crops of a training step: float32 (B, 3, crop, crop) in [0, 1].

        `batch_size` counts all processes together: step s has the crops s * batch_size to
        (s + 1) * batch_size - 1, and process `rank` of `world_size` gets every world_size-th of
        them. K processes see what one process sees.
        """
        return self.as_input(self.stored(step, batch_size, rank, world_size))

    def stored(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """`batch` as the images are kept, (B, crop, crop, 3) of uint8: a quarter of the bytes on
        the way to a GPU."""
        first = step * batch_size
        numbers = range(first + rank, first + batch_size, world_size)
        return torch.from_numpy(np.stack([self._crop(i) for i in numbers]))

    def as_input(self, rows: Tensor) -> Tensor:
        """What a network takes of `stored` rows, on their device and channels last in memory."""
        return rows.permute(0, 3, 1, 2).to(torch.float32).div_(self.scale)

    def _crop(self, i: int) -> np.ndarray:
        """Crop i as a view (crop, crop, channels) of a decoded image."""
        problem = ""
        for draw in range(MAX_DRAWS):
            # Which image, which frame, from which row and column, mirrored or not.
            where, frame, top, left, mirror = np.random.default_rng((self.seed, i, draw)).random(5)
            index = np.searchsorted(self.cumulative, where * self.cumulative[-1], side="right")
            source = self.images.sources[index]
            try:
                pixels = self._pixels(int(index), int(frame * source.frames * self.views))
            except ImageError as error:
                problem = str(error)
                continue
            height, width = pixels.shape[:2]
            y = self.grid * int(top * ((height - self.crop) // self.grid + 1))
            x = self.grid * int(left * ((width - self.crop) // self.grid + 1))
            view = pixels[y : y + self.crop, x : x + self.crop]
            return view[:, ::-1] if self.mirrors and mirror < 0.5 else view
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


class CentreCrops:
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
            raise ImageError(too_small(source, crop).reason)


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
