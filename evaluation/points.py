"""What is measured: operating points, and their codecs from pixels to the bytes of a file."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from models import checkpoint, convert, search
from models.base import Codec, pad
from models.cli import choose_device
from models.errors import UsageError
from models.images import to_tensor, to_uint8
from models.presets import MAX_PIXELS, zoo_point


class PixelCodec(Protocol):
    """Pixels are uint8 arrays (H, W, 3), and bytes those of a complete file.

    `decode`: StreamError for a file that it cannot read. `estimate`: the model's own, in bits.
    """

    def encode(self, pixels: np.ndarray) -> bytes: ...
    def decode(self, data: bytes) -> np.ndarray: ...
    def estimate(self, pixels: np.ndarray) -> float: ...


@dataclass(frozen=True)
class Point:
    """An operating point: the lambda of its results, and where its weights come from, for a reader.

    It can be sent to another process. Every `load()` makes a codec of its own; CheckpointError or
    UsageError if it cannot be had.
    """

    lmbda: float
    source: str
    load: Callable[[], PixelCodec]


class ModelCodec:
    """One of this repository's models as a `PixelCodec`."""

    def __init__(
        self,
        model: Codec,
        device: str = "cpu",
        max_pixels: int = MAX_PIXELS,
        effort: int = 0,
        precision: str = "fp32",
        gain: float = 1.0,
    ):
        self.device = choose_device(device)
        self.model = model.to(self.device).use(precision)
        self.max_pixels, self.effort, self.gain = max_pixels, effort, gain

    def encode(self, pixels: np.ndarray) -> bytes:
        """After a search of `effort` steps. ValueError: see `models.search.compress`."""
        x = to_tensor(pixels).to(self.device)
        if self.effort:
            return search.compress(self.model, x, self.effort, self.gain)
        return self.model.compress(x, self.gain)[0]

    def decode(self, data: bytes) -> np.ndarray:
        return to_uint8(self.model.decompress([data], self.max_pixels))

    @torch.no_grad()
    def estimate(self, pixels: np.ndarray) -> float:
        """By `forward` with g_a's latents, rounded, also where the encoder searches for others."""
        x = pad(to_tensor(pixels).to(self.device), self.model.downsampling)
        return likelihood_bits(self.model(x, quantization="round", gain=self.gain))


def likelihood_bits(out: dict[str, Any]) -> float:
    """-log2 of all likelihoods of a forward pass, summed."""
    return sum(-p.double().log2().sum().item() for p in out["likelihoods"].values())


def trained_point(
    path: Path, model: str, lmbda: float | None = None, modules: Sequence[str] = (), **options: Any
) -> Point:
    """A checkpoint of train.py; for another lambda than its own, at the gain that stands for it.

    `modules` are imported first: they register models. `options`, here and below, are those of
    `ModelCodec`. CheckpointError; UsageError if it holds another model.
    """
    metadata = checkpoint.read_metadata(path)
    if metadata["model"] != model:
        raise UsageError(f"{path} holds a {metadata['model']}, not a {model}: name that model.")
    own = metadata["lmbda"]
    lmbda = lmbda or own
    gain = math.sqrt(lmbda / own)
    source = str(path) if gain == 1 else f"{path} at a gain of {gain:.4f}"
    return Point(lmbda, source, partial(_trained, path, modules, gain=gain, **options))


def _trained(path: Path, modules: Sequence[str], **options: Any) -> ModelCodec:
    for module in modules:
        importlib.import_module(module)
    return ModelCodec(checkpoint.load(path), **options)


def imported_point(path: Path, model: str, quality: int, metric: str, **options: Any) -> Point:
    """Weights of CompressAI's twin of a model, frozen and coded here. `quality` 1 to 8."""
    about = path, model, quality, metric
    lmbda = zoo_point(model, quality, metric).lmbda
    return Point(lmbda, str(path), partial(_imported, about, **options))


def _imported(about: tuple[Path, str, int, str], **options: Any) -> ModelCodec:
    return ModelCodec(convert.load_compressai(*about).freeze(), **options)
