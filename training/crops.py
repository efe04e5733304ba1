"""Square crops of arrays that depend on a seed alone, cut ahead of the steps.

    crops = RandomCrops(Pixels(images, 256), 256, seed=0)
    x = crops.batch(step, 64)           # (64, 3, 256, 256) in [0, 1], the same for ever

The crop with number i is a function of (seed, i) and the arrays, so a run that resumes at a step
sees what an uninterrupted one would have seen, and K processes share a batch without talking.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from models.cli import note
from models.errors import ImageError
from training.data import ImageSet
from training.settings import Settings
from training.team import Team

MEMORY = 2 * 2**30  # bytes of decoded images to hold: 716 megapixels
MAX_DRAWS = 100  # unreadable images in a row before a crop is given up


class Arrays:
    """What crops are taken of: `views` arrays (height, width, channels) of every frame of an image,
    with values up to `scale`. Crops begin at multiples of `grid`; half are mirrored, if `mirrors`.
    `bytes`: of all arrays, infinite where they do not stay in memory."""

    views, scale, grid, mirrors = 1, 255, 1, True
    bytes: float

    def __init__(self, images: ImageSet):
        self.images = images
        self.kept: dict[tuple[int, int], np.ndarray] = {}  # by image and number

    def array(self, index: int, number: int) -> np.ndarray:
        """Array `number` of image `index`. ImageError if it could not be read."""
        if (index, number) not in self.kept:
            raise ImageError(f"{self.images.sources[index].name} cannot be read.")
        return self.kept[index, number]


class Pixels(Arrays):
    """Decoded images, uint8 (H, W, 3), one array for each frame; for several threads at once.

    The first that are read stay in memory, up to `memory` bytes; the others are decoded each time
    (drawn at random, no image is nearer to its next use than another). An image that turns out to
    be unreadable, or smaller than a crop, is noted once.
    """

    def __init__(self, images: ImageSet, crop: int, memory: int = MEMORY):
        super().__init__(images)
        self.crop, self.room, self.lock = crop, memory, threading.Lock()
        self.unreadable: dict[tuple[int, int], str] = {}  # image and frame -> sentence
        needed = sum(3 * s.height * s.width * s.frames for s in images.sources)
        self.bytes = needed if needed <= memory else math.inf

    def array(self, index: int, number: int) -> np.ndarray:
        key = index, number
        if key in self.unreadable:
            raise ImageError(self.unreadable[key])
        if key in self.kept:
            return self.kept[key]
        try:
            pixels = self.images.sources[index].read(number, self.crop)
        except ImageError as error:
            self.unreadable[key] = str(error)
            note(f"Skipped ({len(self.unreadable)} so far): {error}")
            raise
        with self.lock:
            if pixels.nbytes <= self.room and key not in self.kept:
                self.kept[key] = pixels
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
        """The crops of a step, float32 (B, channels, crop, crop), pixels in [0, 1]: of the
        `batch_size` of all processes every `world_size`-th, from `rank` on."""
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
            number = int(frame * arrays.images.sources[index].frames * arrays.views)
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
        sources, views = self.arrays.images.sources, self.arrays.views
        keys = [(k, n) for k, s in enumerate(sources) for n in range(s.frames * views)]
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


class Prefetch:
    """Makes the batches of the next steps in background threads.

    Called with a step, gives this process's crops of it, (B, channels, P, P) on its device.
    """

    def __init__(self, crops: RandomCrops, settings: Settings, team: Team):
        self.crops, self.team, self.workers = crops, team, settings.num_workers
        self.batch_size, self.last = settings.batch_size * team.size, settings.total
        self.pool = ThreadPoolExecutor(max(1, self.workers))
        self.pending: dict[int, Future] = {}

    def make(self, step: int) -> Tensor:
        """The crops of a step as they are kept, made now, (B, P, P, channels)."""
        rows = self.crops.stored(step, self.batch_size, self.team.rank, self.team.size)
        return rows.pin_memory() if self.team.device.type == "cuda" else rows

    def __call__(self, step: int) -> Tensor:
        for later in range(step, min(step + 2 * self.workers + 1, self.last)):
            if later not in self.pending:
                self.pending[later] = self.pool.submit(self.make, later)
        rows = self.pending.pop(step).result()
        return self.crops.as_input(rows.to(self.team.device, non_blocking=True))

    def close(self) -> None:
        """Drop what is not begun."""
        self.pool.shutdown(wait=False, cancel_futures=True)
