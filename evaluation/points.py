"""What is measured: codecs that turn pixels into the bytes of a file and back, and where they are.

A `Point` is an operating point that can be loaded, in any process, as a `PixelCodec`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from models import checkpoint, convert, search
from models.base import Codec, pad
from models.cli import choose_device
from models.images import to_tensor, to_uint8
from models.presets import MAX_PIXELS, zoo_point


class PixelCodec(Protocol):
    """Pixels are uint8 arrays (H, W, 3); `estimate` is the model's own estimate in bits."""

    def encode(self, pixels: np.ndarray) -> bytes:
        """The complete file of an image, uint8 (H, W, 3)."""
        ...

    def decode(self, data: bytes) -> np.ndarray:
        """The image, uint8 (H, W, 3), of a file; StreamError if it cannot be read."""
        ...

    def estimate(self, pixels: np.ndarray) -> float:
        """The model's own estimate for an image, uint8 (H, W, 3), in bits."""
        ...


class Point(Protocol):
    """A picklable description of one codec; every `load` makes a codec of its own."""

    @property
    def lmbda(self) -> float:
        """The lambda that results are filed under."""
        ...

    @property
    def source(self) -> str:
        """Where the weights come from, for the reader."""
        ...

    def load(self) -> PixelCodec:
        """A codec, ready to code. CheckpointError or UsageError if it cannot be had."""
        ...


class ModelCodec:
    """One of this repository's models as a `PixelCodec`."""

    def __init__(
        self,
        model: Codec,
        device: str,
        max_pixels: int = MAX_PIXELS,
        effort: int = 0,
        precision: str = "fp32",
    ):
        self.device = choose_device(device)
        self.model = model.to(self.device).use(precision)
        self.max_pixels, self.effort = max_pixels, effort

    def encode(self, pixels: np.ndarray) -> bytes:
        """The complete file of an image, uint8 (H, W, 3), after a search of `effort` steps.

        ValueError: see `models.search.compress`.
        """
        x = to_tensor(pixels).to(self.device)
        if self.effort:
            return search.compress(self.model, x, self.effort)
        return self.model.compress(x)[0]

    def decode(self, data: bytes) -> np.ndarray:
        """The image, uint8 (H, W, 3), of a file; StreamError if it is not this model's."""
        return to_uint8(self.model.decompress([data], self.max_pixels))

    @torch.no_grad()
    def estimate(self, pixels: np.ndarray) -> float:
        """Bits of an image (H, W, 3) by `forward` with rounded latents, padded as it is coded.

        Of g_a's latents, also where the encoder searches for others.
        """
        x = pad(to_tensor(pixels).to(self.device), self.model.downsampling)
        return likelihood_bits(self.model(x, quantization="round"))


def likelihood_bits(out: dict[str, Any]) -> float:
    """-log2 of all likelihoods of a forward pass, summed."""
    return sum(-p.double().log2().sum().item() for p in out["likelihoods"].values())


@dataclass(frozen=True)
class TrainedPoint:
    """A checkpoint of this program. `modules` are imported first: they register models."""

    path: Path
    lmbda: float
    device: str = "cpu"
    modules: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS
    effort: int = 0
    precision: str = "fp32"

    @property
    def source(self) -> str:
        """The path of the weights."""
        return str(self.path)

    def load(self) -> PixelCodec:
        """The codec, frozen as it was saved. CheckpointError."""
        for module in self.modules:
            importlib.import_module(module)
        model = checkpoint.load(self.path)
        return ModelCodec(model, self.device, self.max_pixels, self.effort, self.precision)


@dataclass(frozen=True)
class ImportedPoint:
    """Weights of CompressAI's twin of a model, frozen and coded here. `quality` 1 to 8."""

    path: Path
    model: str
    quality: int
    metric: str
    device: str = "cpu"
    max_pixels: int = MAX_PIXELS
    effort: int = 0
    precision: str = "fp32"

    @property
    def lmbda(self) -> float:
        """That of the zoo for the quality and metric."""
        return zoo_point(self.model, self.quality, self.metric).lmbda

    @property
    def source(self) -> str:
        """The path of the weights."""
        return str(self.path)

    def load(self) -> PixelCodec:
        """The codec, frozen here. CheckpointError."""
        model = convert.load_compressai(self.path, self.model, self.quality, self.metric)
        model.freeze()
        return ModelCodec(model, self.device, self.max_pixels, self.effort, self.precision)
