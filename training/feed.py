"""From the flags to the images of a run: crops to train on, ahead of time, and images held out."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

import models
from training.crops import CentreCrops, RandomCrops
from training.data import ImageSet, held_out, open_dataset
from training.settings import Settings
from training.team import Team

MAX_HELD_OUT = 24
VALIDATION_SIDE = 256  # pixels, whatever the size of the training crops: runs stay comparable


@dataclass(frozen=True)
class Data:
    """Training crops; images for validation, each (3, H, W); what to tell about them."""

    crops: RandomCrops
    held_out: list[Tensor]
    report: str
    provenance: dict


def open_data(settings: Settings) -> Data:
    """The data of a run. ImageError, with what to do, when there is none.

    Validation takes `--test_dataset`, else the test/ folder beside train/, else images held out
    of the training set: one in twenty, at most 24.
    """
    images = open_dataset(settings.dataset, "train", min_side=settings.patch_size)
    step = models.MODELS[settings.model_name].downsampling
    test = settings.test_dataset
    if test is None and settings.dataset and (Path(settings.dataset) / "test").is_dir():
        test = settings.dataset
    if test is not None:
        validation = open_dataset(test, "test", min_side=step)
    else:
        count = min(MAX_HELD_OUT, max(len(images) // 20, 1), len(images) - 1)
        images, validation = held_out(images, count)
    report = f"Training on {images.report()}\nValidation on {validation.title}: {len(validation)}"
    return Data(
        RandomCrops(images, settings.patch_size, settings.seed),
        _centres(validation, step),
        report,
        {
            "data": _name(settings.dataset),
            "images": len(images),
            "data_fingerprint": images.fingerprint,
            "validation": _name(test) if test else f"{len(validation)} images held out",
        },
    )


def _name(path: str | None) -> str:
    return Path(path).resolve().name if path else "built-in sample photographs"


def _centres(images: ImageSet, step: int) -> list[Tensor]:
    """The centre of each, all of one size: a multiple of `step` that fits, at most 256."""
    if not len(images):
        return []
    fits = min(min(s.height, s.width) for s in images.sources)
    return CentreCrops(images, min(VALIDATION_SIDE, fits // step * step)).tensors()


class Prefetch:
    """Makes the batches of the next steps in background threads.

    Called with a step, gives this process's crops of it, (B, 3, P, P) in [0, 1] on its device.
    Which thread makes a batch, and when, does not matter: a batch depends on its step only.
    """

    def __init__(self, crops: RandomCrops, settings: Settings, team: Team):
        self.crops, self.team = crops, team
        self.batch_size = settings.batch_size * team.size
        self.last, self.workers = settings.total, settings.num_workers
        self.pool = ThreadPoolExecutor(self.workers) if self.workers else None
        self.pending: dict[int, Future] = {}

    def make(self, step: int) -> Tensor:
        """The crops of a step as they are kept, made now, (B, P, P, 3)."""
        rows = self.crops.stored(step, self.batch_size, self.team.rank, self.team.size)
        return rows.pin_memory() if self.team.device.type == "cuda" else rows

    def __call__(self, step: int) -> Tensor:
        if self.pool is None:
            rows = self.make(step)
        else:
            for later in range(step, min(step + 2 * self.workers + 1, self.last)):
                if later not in self.pending:
                    self.pending[later] = self.pool.submit(self.make, later)
            rows = self.pending.pop(step).result()
        return self.crops.as_input(rows.to(self.team.device, non_blocking=True))

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *exception) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
