"""Four learned image codecs: `models.load` for a trained one, `models.build` for a new one."""

from __future__ import annotations

from pathlib import Path

import torch

from models import checkpoint
from models.base import Codec
from models.errors import CheckpointError, UsageError
from models.registry import MODELS, build, canonical_name, register

__all__ = ["MODELS", "Codec", "build", "canonical_name", "load", "register"]


def load(
    name: str,
    lmbda: float | None = None,
    epoch: int | None = None,
    root: str | Path | None = None,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
) -> Codec:
    """A trained codec, frozen and in eval mode: `load("Hyperprior", lmbda=0.013)`.

    lmbda: the operating point; None is the largest, of the best quality. epoch: of the checkpoint;
    None is the last. root: a folder of checkpoints; None is the study's, ckpts/ beside this
    package, wherever the program runs. `.metadata["file"]` is the file that was loaded. precision:
    see `Codec.use`, which may raise UsageError.
    CheckpointError that says what there is when there is no such codec, or the file is broken.
    """
    try:
        name = canonical_name(name)
    except UsageError as error:
        raise CheckpointError(str(error)) from None
    path = checkpoint.find(name, root, epoch, lmbda)[-1]
    model = checkpoint.load(path, device)
    if type(model).__name__ != name:
        raise CheckpointError(f"{path} holds a {type(model).__name__}, not a {name}: move it away.")
    return model.use(precision)
