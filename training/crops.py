"""Square crops of arrays: random ones that depend on a seed alone, and centres for validation.

    crops = RandomCrops(Pixels(images, 256), 256, seed=0)
    x = crops.batch(step, 64)           # (64, 3, 256, 256) in [0, 1], the same for ever

The crop with number i is a function of (seed, i) and the arrays, so a run that resumes at a step
sees what an uninterrupted one would have seen, and K processes share a batch without talking.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.cli import note
from models.errors import ImageError
from training.data import ImageSet, too_small

MEMORY = 2 * 2**30  # bytes of decoded images to hold: 716 megapixels
MAX_DRAWS = 100  # unreadable images in a row before a crop is given up


class Arrays(Protocol):
    """What crops are taken of: `views` arrays (height, width, channels) of every frame of an image,
    with values up to `scale`. Crops begin at multiples of `grid`; half are mirrored, if at all.
    `bytes`: of all arrays, infinite where they do not stay in memory."""

    images: ImageSet
    views: int
    scale: int
    grid: int
    mirrors: bool
    bytes: float

    def array(self, index: int, number: int) -> np.ndarray:
        """Array `number` of image `index`, (h, w, channels); ImageError if it cannot be read."""


class Pixels:
    """Decoded images, uint8 (H, W, 3), one array for each frame; for several threads at once.

    The first that are read stay in memory, up to `memory` bytes; the others are decoded each time
    (drawn at random, no image is nearer to its next use than another). An image that turns out to
    be unreadable is noted once.
    """

    views, scale, grid, mirrors = 1, 255, 1, True

    def __init__(self, images: ImageSet, crop: int, memory: int = MEMORY):
        self.images, self.crop = images, crop
        self.unreadable: dict[str, str] = {}  # name and frame -> sentence
        self.decoded: dict[tuple[int, int], np.ndarray] = {}
        self.room, self.lock = memory, threading.Lock()
        needed = sum(3 * s.height * s.width * s.frames for s in images.sources)
        self.bytes = needed if needed <= memory else math.inf

    def array(self, index: int, number: int) -> np.ndarray:
        """Frame `number` of an image, uint8 (H, W, 3), at least as large as a crop."""
        source = self.images.sources[index]
        key = f"{source.name} {number}"
        if key in self.unreadable:
            raise ImageError(self.unreadable[key])
        pixels = self.decoded.get((index, number))
        if pixels is None:
            try:
                pixels = source.read(number)
                if min(pixels.shape[:2]) < self.crop:  # changed since its header was read
                    raise ImageError(f"{source.name} has become smaller than the crop.")
            except ImageError as error:
                self.unreadable[key] = str(error)
                note(f"Skipped ({len(self.unreadable)} so far): {error}")
                raise
            with self.lock:
                if pixels.nbytes <= self.room and (index, number) not in self.decoded:
                    self.decoded[index, number] = pixels
                    self.room -= pixels.nbytes
        return pixels


class RandomCrops:
    """Random square crops of arrays, of which there are infinitely many.

    An image is drawn in proportion to its area, so that each pixel counts the same; of a clip, any
    frame. In place of an image that cannot be read another is drawn; ImageError when none can.
    """

    def __init__(self, arrays: Arrays, crop: int, seed: int = 0):
        self.arrays, self.crop, self.seed = arrays, crop, seed
        sources = arrays.images.sources
        self.cumulative = np.cumsum([float(s.height * s.width) for s in sources])

    def batch(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """The crops of a training step: float32 (B, channels, crop, crop), pixels in [0, 1].

        Of `batch_size`, all processes together, this one gets every world_size-th: K processes see
        what one process sees.
        """
        return self.as_input(self.stored(step, batch_size, rank, world_size))

    def stored(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """`batch` as the arrays are kept, (B, crop, crop, channels): a quarter of the bytes."""
        first = step * batch_size
        numbers = range(first + rank, first + batch_size, world_size)
        return torch.from_numpy(np.stack([self._crop(i) for i in numbers]))

    def as_input(self, rows: Tensor) -> Tensor:
        """What a network takes of `stored` rows, on their device and channels last in memory."""
        return rows.permute(0, 3, 1, 2).to(torch.float32).div_(self.arrays.scale)

    def _crop(self, i: int) -> np.ndarray:
        """Crop i as a view (crop, crop, channels) of an array."""
        _, array, y, x, mirrored = self._place(i)
        view = array[y : y + self.crop, x : x + self.crop]
        return view[:, ::-1] if mirrored else view

    def _place(self, i: int) -> tuple[tuple[int, int], np.ndarray, int, int, bool]:
        """Image and number of an array, the array, the first row and column of crop i in it, and
        whether it is mirrored."""
        problem, arrays = "", self.arrays
        for draw in range(MAX_DRAWS):
            # Which image, which frame, from which row and column, mirrored or not.
            where, frame, top, left, mirror = np.random.default_rng((self.seed, i, draw)).random(5)
            index = int(np.searchsorted(self.cumulative, where * self.cumulative[-1], "right"))
            frames = arrays.images.sources[index].frames
            number = int(frame * frames * arrays.views)
            try:
                array = arrays.array(index, number)
            except ImageError as error:
                problem = str(error)
                continue
            height, width = array.shape[:2]
            y = arrays.grid * int(top * ((height - self.crop) // arrays.grid + 1))
            x = arrays.grid * int(left * ((width - self.crop) // arrays.grid + 1))
            return (index, number), array, y, x, arrays.mirrors and mirror < 0.5
        raise ImageError(f"{MAX_DRAWS} images in a row could not be read; the last: {problem}")


class CropsOnDevice(RandomCrops):
    """The same crops, cut on a device that holds all arrays: a step sends it three numbers each."""

    def __init__(self, crops: RandomCrops, device: torch.device, threads: int = 1):
        super().__init__(crops.arrays, crops.crop, crops.seed)
        frames = [source.frames for source in self.arrays.images.sources]
        keys = [(k, n) for k, count in enumerate(frames) for n in range(count * self.arrays.views)]
        parts, first = [], 0
        self.first: dict[tuple[int, int], int] = {}  # of an array, its first row in `rows`
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for key, array in zip(keys, pool.map(self._read, keys), strict=True):
                if array is not None:
                    self.first[key], first = first, first + array.shape[0] * array.shape[1]
                    parts.append(torch.from_numpy(array).to(device).flatten(0, 1))
        self.rows = torch.cat(parts)  # (all positions, channels)

    def _read(self, key: tuple[int, int]) -> np.ndarray | None:
        with suppress(ImageError):  # noted there, and another is drawn in its place
            return self.arrays.array(*key)
        return None

    def _crop(self, i: int) -> np.ndarray:
        """Of crop i: row in `rows` of its first position, rows from one line to the next, and
        from one column to the next."""
        key, array, y, x, mirrored = self._place(i)
        width = array.shape[1]
        start = self.first[key] + y * width + x + (self.crop - 1) * mirrored
        return np.array([start, width, -1 if mirrored else 1])

    def as_input(self, rows: Tensor) -> Tensor:
        """The crops, float32 (B, channels, crop, crop), of what `stored` says of them."""
        start, down, across = rows[:, :, None, None].unbind(1)
        side = torch.arange(self.crop, device=rows.device)
        return super().as_input(self.rows[start + down * side[:, None] + across * side])


def centre_crops(images: ImageSet, crop: int) -> dict[str, Tensor]:
    """The centre of each image that can be read, by name, float32 (3, crop, crop) in [0, 1]; of a
    clip, its middle frame. The others are noted."""
    centres = {}
    for source in images.sources:
        try:
            pixels = source.read(source.frames // 2)
            y, x = ((side - crop) // 2 for side in pixels.shape[:2])
            if min(y, x) < 0:
                raise ImageError(too_small(source, crop))
        except ImageError as error:
            note(f"Skipped: {error}")
            continue
        view = pixels[y : y + crop, x : x + crop]
        centres[source.name] = torch.from_numpy(view.transpose(2, 0, 1).copy()).float().div_(255)
    return centres
