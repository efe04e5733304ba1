"""From the flags as given to a complete description of a run."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import models
from models.errors import TrainingError
from models.presets import (
    CATALOGUE,
    CHANNELS,
    LAMBDAS,
    OperatingPoint,
    operating_point,
    points,
    zoo_point,
)
from training.inheritance import TRANSFORMS
from training.loss import import_ms_ssim
from training.optimizers import DEFAULT_LR

# The original report's training; the context models train for 250 epochs, and Hyperprior's
# learning rate falls at fixed epochs where the others wait for a plateau.
REPORT: dict[str, Any] = {
    "batch_size": 64,
    "patch_size": 256,
    "epoch": 200,
    "optimizer": "adam",
    "scheduler": "plateau",
    "warmup": 0,
    "ema": 0.0,
    "steps_per_epoch": 0,
}
REPORT_BY_MODEL: dict[str, dict[str, Any]] = {
    "Hyperprior": {"scheduler": "multistep"},
    **{name: {"epoch": 250} for name, entry in CATALOGUE.items() if entry.context},
}
# Without a data set: a few minutes on a CPU, enough to see the loss fall.
DEMONSTRATION: dict[str, Any] = {
    "batch_size": 8,
    "patch_size": 128,
    "epoch": 5,
    "optimizer": "muon",
    "scheduler": "cosine",
    "warmup": 10,
    "ema": 0.95,
    "steps_per_epoch": 30,
}
MS_SSIM_LR = 1e-5  # from an MSE checkpoint, as CompressAI's zoo was trained
MS_SSIM_MIN_PATCH = 161  # five scales with a window of 11

# Flags that a resumed run must repeat: they decide what the steps compute.
BINDING = (
    "model_name", "lmbda", "metric", "N", "M", "optimizer", "lr", "rest_lr", "scheduler", "warmup",
    "milestones", "clip", "ema", "epoch", "steps_per_epoch", "batch_size", "patch_size",
    "ste_fraction", "quantization", "val_time", "seed", "processes", "fixed", "latent_views",
)  # fmt: skip
AT_LEAST = {
    1: ("batch_size", "test_batch_size", "epoch", "check_time", "val_time", "log_every",
        "max_skips", "latent_views"),
    0: ("steps_per_epoch", "warmup", "num_workers"),
}  # fmt: skip
UNTOLD = ("runs", "ckpts", "resume", "overwrite", "record", "import_module")


@dataclass(frozen=True)
class Settings:
    """One run, described to the end: the flags of train.py with every default filled in.

    `steps_per_epoch` is 0 (one pass over the images) until the data is open, see `completed`.
    """

    # What to train
    model_name: str
    lmbda: float
    code_rate: str
    quality: int | None
    metric: str
    N: int
    M: int
    init_ckpt: str | None
    init_transforms: str | None
    rescale: float | None
    fixed: list[str]
    latent_views: int
    import_module: str | None
    # Data
    dataset: str | None
    test_dataset: str | None
    batch_size: int
    test_batch_size: int
    patch_size: int
    num_workers: int
    # Optimisation
    epoch: int
    steps_per_epoch: int
    optimizer: str
    lr: float
    rest_lr: float | None
    scheduler: str
    milestones: list[int]
    warmup: int
    clip: float
    ema: float
    ste_fraction: float
    quantization: str
    max_skips: int
    seed: int
    # Machine
    gpu_id: str
    precision: str
    compile: bool
    threads: int | None
    # Run
    exp_version: str | None
    resume: bool
    val_time: int
    check_time: int
    save_minutes: float
    time_limit: float | None
    log_every: int
    tensorboard: bool
    record: bool
    overwrite: bool
    runs: str
    ckpts: str | None
    # What no flag says
    processes: int = 1

    @property
    def demonstration(self) -> bool:
        """A short run on sample photographs, for want of data."""
        return self.dataset is None

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.epoch * self.steps_per_epoch

    @property
    def ste_start(self) -> int:
        """The first step with real rounding."""
        return self.total - round(self.ste_fraction * self.total)

    @property
    def keeps_latents(self) -> bool:
        """Both transforms are fixed: y of the training images is computed once."""
        return set(TRANSFORMS) <= set(self.fixed)

    @property
    def parents(self) -> list[tuple[str, tuple[str, ...]]]:
        """The checkpoints to start from, and the parts that each gives; the later one prevails."""
        pairs = (self.init_ckpt, ("",)), (self.init_transforms, TRANSFORMS)
        return [(path, parts) for path, parts in pairs if path is not None]

    @property
    def point(self) -> OperatingPoint:
        """The operating point that is trained."""
        return OperatingPoint(
            self.model_name, self.lmbda, self.code_rate, self.N, self.M, self.metric
        )

    def completed(self, images: int, processes: int) -> Settings:
        """With what depends on the number of training images and of processes."""
        batch = self.batch_size * processes
        steps = self.steps_per_epoch or max(1, round(images / batch))
        return replace(self, processes=processes, steps_per_epoch=steps)

    def config(self) -> dict[str, Any]:
        """What goes into checkpoints and states: no folder of the machine but its last name."""
        described = {k: v for k, v in asdict(self).items() if k not in UNTOLD}
        for name in ("dataset", "test_dataset"):
            if described[name] is not None:
                described[name] = Path(described[name]).resolve().name
        for name in ("init_ckpt", "init_transforms"):
            if described[name] is not None:
                described[name] = Path(described[name]).name
        return described

    def differences(self, before: dict) -> list[str]:
        """The binding flags that differ from those of a saved state, in words."""
        return [
            f"--{name} was {before.get(name)}, is now {getattr(self, name)}"
            for name in BINDING
            if before.get(name) != getattr(self, name)
        ]


def resolve(flags: Namespace) -> Settings:
    """The flags with every default filled in; TrainingError for what cannot be."""
    given = vars(flags).copy()
    try:
        given["model_name"] = name = models.canonical_name(flags.model_name)
        point = _point(flags, name)
    except TrainingError:
        raise
    except ValueError as error:
        raise TrainingError(str(error)) from None
    given |= {"lmbda": point.lmbda, "code_rate": point.code_rate, "N": point.N, "M": point.M}
    by_model = REPORT_BY_MODEL.get(name, {})
    defaults = DEMONSTRATION if flags.dataset is None else {**REPORT, **by_model}
    for name, value in defaults.items():
        if given[name] is None:
            given[name] = value
    if given["lr"] is None:
        fine_tune = flags.metric == "ms-ssim" and flags.init_ckpt
        given["lr"] = MS_SSIM_LR if fine_tune else DEFAULT_LR[given["optimizer"]]
    settings = Settings(**given)
    _check(settings)
    return settings


def _point(flags: Namespace, name: str) -> OperatingPoint:
    lmbda, rate, metric = flags.lmbda, flags.code_rate, flags.metric
    if flags.quality is not None:
        if lmbda is not None or rate is not None:
            raise TrainingError("--quality already means a lambda: give it alone.")
        point = zoo_point(name, flags.quality, metric)
    elif metric == "ms-ssim" and lmbda is None:
        raise TrainingError("MS-SSIM has lambdas of its own: give --quality 1..8 or --lmbda.")
    else:
        point = _mse_point(name, lmbda, rate, metric)
    return replace(point, N=flags.N or point.N, M=flags.M or point.M, metric=metric)


def _mse_point(name: str, lmbda: float | None, rate: str | None, metric: str) -> OperatingPoint:
    """The point of a lambda (default: the first of the rate) with the channels of its rate."""
    if lmbda is None:
        lmbda = LAMBDAS[rate or "low"][0]
    if lmbda <= 0:
        raise TrainingError(f"--lmbda must be positive, not {lmbda:g}.")
    if rate is None:
        try:
            return operating_point(name, lmbda)
        except ValueError:  # a lambda or model that is not in the study
            rate = "high" if metric == "mse" and lmbda > LAMBDAS["low"][-1] else "low"
    channels = CHANNELS.get(name, CHANNELS["Factorized"])[rate]
    known = points(name, rate)
    if (
        known
        and metric == "mse"
        and lmbda in {p.lmbda for p in points(name)} - {p.lmbda for p in known}
    ):
        raise TrainingError(
            f"lambda {lmbda:g} does not belong to code rate {rate!r}: drop one flag."
        )
    return OperatingPoint(name, lmbda, rate, *channels, metric)


def _check(settings: Settings) -> None:
    step = models.MODELS[settings.model_name].downsampling
    if settings.patch_size < step or settings.patch_size % step:
        raise TrainingError(
            f"--patch_size must be a multiple of {step} for {settings.model_name}, "
            f"not {settings.patch_size}."
        )
    if settings.metric == "ms-ssim":
        import_ms_ssim()  # a missing package is told before the work
        if settings.patch_size < MS_SSIM_MIN_PATCH:
            raise TrainingError(
                f"MS-SSIM needs --patch_size of at least {MS_SSIM_MIN_PATCH}, "
                f"not {settings.patch_size}."
            )
    for least, names in AT_LEAST.items():
        for name in names:
            if getattr(settings, name) < least:
                value = getattr(settings, name)
                raise TrainingError(f"--{name} must be at least {least}, not {value}.")
    if settings.lr <= 0 or settings.clip < 0 or not 0 <= settings.ema < 1:
        raise TrainingError(
            "--lr must be positive, --clip not negative, --ema at least 0 and below 1."
        )
    if settings.rescale is not None and settings.rescale <= 0:
        raise TrainingError(f"--rescale must be positive, not {settings.rescale:g}.")
    if not 0 <= settings.ste_fraction <= 1:
        raise TrainingError(
            f"--ste_fraction must be between 0 and 1, not {settings.ste_fraction:g}."
        )
