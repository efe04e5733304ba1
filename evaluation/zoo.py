"""CompressAI's image models on this repository's test bench: the same files and measures.

    python test.py --model_name compressai:mbt2018 --quality 1 2 3 4 --dataset_path FOLDER

A file holds CompressAI's strings in our container, header and checksum included, so that
the rates compare. The shape that CompressAI's decoder asks for follows from the image's size.
Its entropy parameters are floats: unlike ours, such a file is only sure to decode on the
machine and with the settings that wrote it.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.points import likelihood_bits
from evaluation.reference import import_compressai
from models.base import pad
from models.cli import choose_device
from models.coding.container import Header, pack, unpack
from models.errors import CheckpointError, StreamError, UsageError
from models.images import to_tensor, to_uint8
from models.presets import ZOO_LAMBDAS

# Architecture -> (name in the file's header, which counts as rate; largest quality)
ARCHITECTURES = {
    "bmshj2018-factorized": ("CAbf", 8),
    "bmshj2018-hyperprior": ("CAbh", 8),
    "mbt2018-mean": ("CAmm", 8),
    "mbt2018": ("CAm", 8),
    "cheng2020-anchor": ("CAca", 6),
    "cheng2020-attn": ("CAct", 6),
}


@dataclass(frozen=True)
class ZooPoint:
    """A model of CompressAI: pretrained, or with the weights of `checkpoint`.

    `quality` gives the lambda that the results are filed under.
    """

    arch: str
    quality: int
    metric: str = "mse"
    checkpoint: Path | None = None
    device: str = "cpu"

    @property
    def lmbda(self) -> float:
        """That of the zoo for the quality and metric."""
        return ZOO_LAMBDAS[self.metric][self.quality - 1]

    @property
    def source(self) -> str:
        """Where the weights come from, for the reader."""
        if self.checkpoint:
            return str(self.checkpoint)
        return f"CompressAI's pretrained {self.arch}, quality {self.quality}"

    def load(self) -> ZooCodec:
        """The codec, ready to code. CheckpointError, or UsageError when nothing is there."""
        try:
            compressai = import_compressai()
        except ImportError as error:
            raise UsageError(
                f"CompressAI cannot be imported ({error}): pip install -r requirements.txt."
            ) from error
        if self.checkpoint:
            model = _from_file(compressai, self.arch, self.checkpoint)
        else:
            model = _pretrained(compressai, self)
        return ZooCodec(model.eval(), self)


def points(
    arch: str, qualities: Sequence[int], metric: str, checkpoint: Path | None, device: str
) -> list[ZooPoint]:
    """One point per quality, checked before anything is loaded. UsageError."""
    if arch not in ARCHITECTURES:
        raise UsageError(f"Unknown architecture {arch!r}; choose: {', '.join(ARCHITECTURES)}.")
    if not qualities:
        raise UsageError(f"compressai:{arch} needs --quality, for example --quality 3.")
    largest = ARCHITECTURES[arch][1]
    wrong = [q for q in qualities if not 1 <= q <= largest]
    if wrong:
        raise UsageError(f"The quality of {arch} is 1 to {largest}, not {wrong[0]}.")
    if checkpoint and not checkpoint.is_file():
        raise CheckpointError(f"There is no checkpoint {checkpoint}.")
    return [ZooPoint(arch, q, metric, checkpoint, device) for q in sorted(set(qualities))]


def _from_file(compressai: Any, arch: str, path: Path) -> torch.nn.Module:
    """CompressAI's model from a file of its training script or its zoo."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.PickleError) as error:
        reason = (str(error).splitlines() or ["empty"])[0][:200]
        raise CheckpointError(f"{path} is not a checkpoint, or is cut short ({reason}).") from error
    try:
        for key in ("network", "state_dict", "model_state_dict"):
            state = state.get(key, state)
        state = compressai.zoo.load_state_dict(state)
        broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
        model = compressai.zoo.image.model_architectures[arch].from_state_dict(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} does not fit {arch}: {reason}") from error
    if broken:
        raise CheckpointError(f"{path} holds NaN or infinity in {broken[0]}; it cannot be used.")
    model.update(force=True)
    return model


def _pretrained(compressai: Any, point: ZooPoint) -> torch.nn.Module:
    urls = compressai.zoo.image.model_urls[point.arch].get(point.metric, {})
    if point.quality not in urls:
        raise UsageError(
            f"CompressAI has no pretrained {point.arch} of quality {point.quality} for "
            f"{point.metric}; pass --checkpoint FILE."
        )
    build = compressai.zoo.models[point.arch]
    try:
        model = build(point.quality, metric=point.metric, pretrained=True, progress=False)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"The pretrained weights of {point.arch}, quality {point.quality}, could not be "
            f"downloaded ({reason}); fetch {urls[point.quality]} on a machine with a network and "
            "pass --checkpoint FILE."
        ) from error
    model.update()
    return model


class ZooCodec:
    """A loaded model of CompressAI as a `PixelCodec`."""

    def __init__(self, model: torch.nn.Module, point: ZooPoint):
        self.device = choose_device(point.device)
        self.model = model.to(self.device)
        self.point = point
        self.digest = _digest(model)

    @torch.no_grad()
    def encode(self, pixels: np.ndarray) -> bytes:
        """The complete file of an image, uint8 (H, W, 3)."""
        strings = self.model.compress(self._padded(pixels))["strings"]
        name, _ = ARCHITECTURES[self.point.arch]
        height, width = pixels.shape[:2]
        lmbda, metric = self.point.lmbda, self.point.metric
        header = Header(name, lmbda, metric, self.digest, height, width, ())
        return pack(header, [_only(string) for string in strings])

    @torch.no_grad()
    def decode(self, data: bytes) -> np.ndarray:
        """The image, uint8 (H, W, 3), of a file; StreamError if it is not one of this model's."""
        header, strings = unpack(data)
        if header.digest != self.digest:
            raise StreamError("The file was written with other weights than these.")
        factor = self.model.downsampling_factor
        shape = (-(-header.height // factor), -(-header.width // factor))
        x_hat = self.model.decompress([[s] for s in strings], shape)["x_hat"]
        return to_uint8(x_hat[:, :, : header.height, : header.width])

    @torch.no_grad()
    def estimate(self, pixels: np.ndarray) -> float:
        """Bits of an image, uint8 (H, W, 3), by CompressAI's forward pass, padded."""
        return likelihood_bits(self.model(self._padded(pixels)))

    def _padded(self, pixels: np.ndarray) -> torch.Tensor:
        return pad(to_tensor(pixels).to(self.device), self.model.downsampling_factor)


def _only(strings: list[bytes]) -> bytes:
    (string,) = strings  # one image
    return string


def _digest(model: torch.nn.Module) -> str:
    """16 hexadecimal digits that name the weights."""
    hashed = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        hashed.update(name.encode())
        hashed.update(value.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:16]
