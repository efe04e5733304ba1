"""From the flags as given to a complete description of a run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

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
from training.optimizers import DEFAULT_LR

# The original report's training; the context models train for 250 epochs, and Hyperprior's
# learning rate falls at fixed epochs where the others wait for a plateau.
REPORT = {
    "batch_size": 64,
    "patch_size": 256,
    "epoch": 200,
    "optimizer": "adam",
    "scheduler": "plateau",
    "warmup": 0,
    "ema": 0.0,
    "steps_per_epoch": None,
}
REPORT_BY_MODEL = {
    "Hyperprior": {"scheduler": "multistep"},
    **{name: {"epoch": 250} for name, entry in CATALOGUE.items() if entry.context},
}
# Without a data set: a few minutes on a CPU, enough to see the loss fall.
DEMONSTRATION = {
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
    "ste_steps", "quantization", "val_time", "seed", "processes", "fixed",
)  # fmt: skip


def resolve(flags: Namespace, processes: int = 1) -> Namespace:
    """A copy of the flags with every default filled in; TrainingError for what cannot be.

    `steps_per_epoch` may stay None: one pass over the images, known when the data is open
    (see `complete`).
    """
    settings = Namespace(**vars(flags), processes=processes)
    try:
        settings.model_name = models.canonical_name(settings.model_name)
        point = _point(settings)
    except TrainingError:
        raise
    except ValueError as error:
        raise TrainingError(str(error)) from None
    settings.lmbda, settings.code_rate, settings.N, settings.M = (
        point.lmbda, point.code_rate, point.N, point.M,
    )  # fmt: skip
    settings.demonstration = settings.dataset is None
    by_model = REPORT_BY_MODEL.get(settings.model_name, {})
    defaults = DEMONSTRATION if settings.demonstration else {**REPORT, **by_model}
    for name, value in defaults.items():
        if getattr(settings, name) is None:
            setattr(settings, name, value)
    if settings.lr is None:
        fine_tune = settings.metric == "ms-ssim" and settings.init_ckpt
        settings.lr = MS_SSIM_LR if fine_tune else DEFAULT_LR[settings.optimizer]
    _check(settings)
    return settings


def complete(settings: Namespace, images: int) -> None:
    """Fill in what depends on the number of training images: the steps."""
    if settings.steps_per_epoch is None:
        batch = settings.batch_size * settings.processes
        settings.steps_per_epoch = max(1, round(images / batch))
    settings.total = settings.epoch * settings.steps_per_epoch
    if settings.ste_steps is None:
        settings.ste_steps = round(settings.ste_fraction * settings.total)


def config(settings: Namespace) -> dict:
    """What goes into checkpoints and states: all settings, paths by their last names only."""
    described = dict(vars(settings))
    for name in ("dataset", "test_dataset"):
        if described[name] is not None:
            described[name] = Path(described[name]).resolve().name
    if settings.init_ckpt:
        described["init_ckpt"] = "/".join(Path(settings.init_ckpt).parts[-2:])
    for name in ("runs", "ckpts", "resume", "overwrite", "record", "import_module"):
        described.pop(name, None)
    return described


def differences(settings: Namespace, before: dict) -> list[str]:
    """The binding flags that differ from those of a saved state, in words."""
    now = vars(settings)
    return [
        f"--{name} was {before.get(name)}, is now {now[name]}"
        for name in BINDING
        if before.get(name) != now[name]
    ]


def _point(settings: Namespace) -> OperatingPoint:
    name, lmbda, rate = settings.model_name, settings.lmbda, settings.code_rate
    if settings.quality is not None:
        if lmbda is not None or rate is not None:
            raise TrainingError("--quality already means a lambda: give it alone.")
        point = zoo_point(name, settings.quality, settings.metric)
    elif settings.metric == "ms-ssim" and lmbda is None:
        raise TrainingError("MS-SSIM has lambdas of its own: give --quality 1..8 or --lmbda.")
    else:
        point = _mse_point(name, lmbda, rate, settings.metric)
    width = {key: getattr(settings, key) or getattr(point, key) for key in ("N", "M")}
    return OperatingPoint(name, point.lmbda, point.code_rate, **width, metric=settings.metric)


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


def _check(settings: Namespace) -> None:
    step = models.MODELS[settings.model_name].downsampling
    if settings.patch_size < step or settings.patch_size % step:
        raise TrainingError(
            f"--patch_size must be a multiple of {step} for {settings.model_name}, "
            f"not {settings.patch_size}."
        )
    if settings.metric == "ms-ssim" and settings.patch_size < MS_SSIM_MIN_PATCH:
        raise TrainingError(
            f"MS-SSIM needs --patch_size of at least {MS_SSIM_MIN_PATCH}, "
            f"not {settings.patch_size}."
        )
    for name in ("batch_size", "test_batch_size", "epoch", "check_time", "val_time", "max_skips"):
        if getattr(settings, name) < 1:
            raise TrainingError(f"--{name} must be at least 1, not {getattr(settings, name)}.")
    if settings.steps_per_epoch is not None and settings.steps_per_epoch < 1:
        raise TrainingError(
            f"--steps_per_epoch must be at least 1, not {settings.steps_per_epoch}."
        )
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
