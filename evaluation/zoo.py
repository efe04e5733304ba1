"""CompressAI's image models on this repository's test bench: the same files and measures.

    python test.py --model_name compressai:mbt2018 --quality 1 2 3 4 --dataset_path FOLDER

A file holds CompressAI's strings in our container, header and checksum included, so that
the rates compare. The shape that CompressAI's decoder asks for follows from the image's size.
Its entropy parameters are floats: unlike ours, such a file is only sure to decode on the
machine and with the settings that wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.points import Point, likelihood_bits
from evaluation.reference import import_compressai
from models import checkpoint, convert
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


def points(
    arch: str, qualities: Sequence[int], metric: str, path: Path | None, device: str
) -> list[Point]:
    """One point per quality, checked before anything is loaded. UsageError, CheckpointError."""
    if arch not in ARCHITECTURES:
        raise UsageError(f"Unknown architecture {arch!r}; choose: {', '.join(ARCHITECTURES)}.")
    largest = ARCHITECTURES[arch][1]
    if not qualities or not all(1 <= quality <= largest for quality in qualities):
        raise UsageError(f"compressai:{arch} needs --quality, 1 to {largest}.")
    if path:
        checkpoint.readable(path)
    result = []
    for quality in sorted(set(qualities)):
        source = str(path or f"CompressAI's pretrained {arch}, quality {quality}")
        load = partial(ZooCodec, arch, quality, metric, path, device)
        result.append(Point(ZOO_LAMBDAS[metric][quality - 1], source, load))
    return result


def _from_file(zoo: Any, arch: str, path: Path) -> torch.nn.Module:
    """CompressAI's model from a file of its training script or its zoo."""
    convert.load_tensors(path)  # says what is wrong with a damaged file
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("network", "state_dict", "model_state_dict"):
            state = state.get(key, state)
        return zoo.image.model_architectures[arch].from_state_dict(zoo.load_state_dict(state))
    except Exception as error:  # whatever CompressAI makes of other weights
        raise CheckpointError(f"{path} does not fit {arch}: {str(error)[:200]}") from error


def _pretrained(zoo: Any, arch: str, quality: int, metric: str) -> torch.nn.Module:
    """CompressAI's own download, which also knows what there is."""
    try:
        return zoo.models[arch](quality, metric=metric, pretrained=True, progress=False)
    except (OSError, RuntimeError) as error:
        file = zoo.image.model_urls[arch].get(metric, {}).get(quality, "a file of them")
        raise UsageError(
            f"The pretrained weights of {arch}, quality {quality}, {metric}, could not be "
            f"downloaded ({error}): fetch {file} elsewhere and pass --checkpoint FILE."
        ) from error


class ZooCodec:
    """A model of CompressAI as a `PixelCodec`: pretrained, or with the weights of a file."""

    def __init__(
        self, arch: str, quality: int, metric: str = "mse", path: Path | None = None,
        device: str = "cpu",
    ):  # fmt: skip
        zoo = import_compressai().zoo
        model = _from_file(zoo, arch, path) if path else _pretrained(zoo, arch, quality, metric)
        model.update(force=path is not None)
        self.model = model.eval().to(choose_device(device))
        self.about = ARCHITECTURES[arch][0], ZOO_LAMBDAS[metric][quality - 1], metric
        weights = sorted(model.state_dict().items())
        parts = [name.encode() + value.cpu().numpy().tobytes() for name, value in weights]
        self.digest = hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    @torch.no_grad()
    def encode(self, pixels: np.ndarray) -> bytes:
        strings = self.model.compress(self._padded(pixels))["strings"]
        height, width = pixels.shape[:2]
        header = Header(*self.about, self.digest, height, width, ())
        return pack(header, [string for (string,) in strings])  # of one image

    @torch.no_grad()
    def decode(self, data: bytes) -> np.ndarray:
        """StreamError if it is not a file of this model's."""
        header, strings = unpack(data)
        if header.digest != self.digest:
            raise StreamError("The file was written with other weights than these.")
        factor = self.model.downsampling_factor
        shape = (-(-header.height // factor), -(-header.width // factor))
        x_hat = self.model.decompress([[s] for s in strings], shape)["x_hat"]
        return to_uint8(x_hat[:, :, : header.height, : header.width])

    @torch.no_grad()
    def estimate(self, pixels: np.ndarray) -> float:
        return likelihood_bits(self.model(self._padded(pixels)))

    def _padded(self, pixels: np.ndarray) -> torch.Tensor:
        device = next(self.model.parameters()).device
        return pad(to_tensor(pixels).to(device), self.model.downsampling_factor)
