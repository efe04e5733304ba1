"""From the flags to the images of a run: crops to train on, ahead of time, and images held out."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

import models
from models.errors import ImageError
from training.crops import RandomCrops, centre_crops
from training.data import ImageSet, held_out, open_dataset
from training.settings import Settings
from training.team import Team

MAX_HELD_OUT = 24
VALIDATION_SIDE = 256  # pixels, whatever the size of the training crops: runs stay comparable


@dataclass(frozen=True)
class Data:
    """Training images; images for validation, each (3, H, W); what to tell about them."""

    images: ImageSet
    held_out: list[Tensor]
    report: str
    provenance: dict


def open_data(settings: Settings) -> Data:
    """The data of a run. ImageError, with what to do, when there is none.

    Validation takes `--test_dataset`, else the test/ folder beside train/, else images held out
    of the training set: one in twenty, at most 24. One of these that cannot be read is left out
    and the next is taken.
    """
    images = open_dataset(settings.dataset, "train", min_side=settings.patch_size)
    step = models.MODELS[settings.model_name].downsampling
    test = settings.test_dataset
    if test is None and settings.dataset and (Path(settings.dataset) / "test").is_dir():
        test = settings.dataset
    if test is not None:
        validation = open_dataset(test, "test", min_side=step)
        centres = _centres(validation, step)
        if not centres:
            raise ImageError(f"No image of {validation.title} can be read.")
    else:
        while True:
            count = min(MAX_HELD_OUT, max(len(images) // 20, 1), len(images) - 1)
            rest, validation = held_out(images, count)
            centres = _centres(validation, step)
            if len(centres) == len(validation):
                break
            images = images.without({s.name for s in validation.sources} - centres.keys())
        images = rest
    provenance = {
        "data": _name(settings.dataset), "images": len(images),
        "data_fingerprint": images.fingerprint,
        "validation": _name(test) if test else f"{len(validation)} images held out",
    }  # fmt: skip
    report = (
        f"Training on {images.report()}\nValidation on {validation.title}: {len(centres)}. "
        "Pixels are sRGB, converted where a file has another profile."
    )
    return Data(images, list(centres.values()), report, provenance)


def _name(path: str | None) -> str:
    return Path(path).resolve().name if path else "built-in sample photographs"


def _centres(images: ImageSet, step: int) -> dict[str, Tensor]:
    """The centre of each, all of one size: a multiple of `step` that fits, at most 256."""
    fits = min((min(s.height, s.width) for s in images.sources), default=step)
    return centre_crops(images, min(VALIDATION_SIDE, fits // step * step))


class Prefetch:
    """Makes the batches of the next steps in background threads.

    Called with a step, gives this process's crops of it, (B, channels, P, P) on its device.
    Which thread makes a batch, and when, does not matter: a batch depends on its step only.
    """

    def __init__(self, crops: RandomCrops, settings: Settings, team: Team):
        self.crops, self.team = crops, team
        self.batch_size = settings.batch_size * team.size
        self.last, self.workers = settings.total, settings.num_workers
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
