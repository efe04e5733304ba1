"""Tiny models with weights that every version of NumPy and torch makes alike.

The golden streams are made of them: whoever changes `uniform`, `fill` or `latents_of` runs
`python -m tests.golden.make` again.
"""

from __future__ import annotations

import hashlib
import math
import resource
import sys
import zlib
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models.base import Codec
from models.coding.gain import Gain
from models.coding.range_coder import Writer
from models.presets import OperatingPoint

NAMES = tuple(models.MODELS)
JOINT, CHECKERBOARD = NAMES[2:]
N, M = 8, 12

each_model = pytest.mark.parametrize("name", NAMES)


def uniform(seed: int | list[int], *shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Float64 numbers in [low, high) from the raw bits of PCG64, whose stream is stable.

    NumPy promises that for the bits only, not for its distributions, and torch for neither.
    """
    raw = np.random.PCG64(seed).random_raw(math.prod(shape)) >> np.uint64(11)
    return torch.from_numpy(low + (high - low) * (raw * 2.0**-53)).view(shape)


def fill(model: Codec, seed: int, y_gain: float = 8.0) -> Codec:
    """Weights that give latents of a useful spread: few zeros, some escapes; returns model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("quantiles"):
                continue
            stream = [seed, zlib.crc32(name.encode())]
            value = uniform(stream, *parameter.shape)
            if parameter.ndim == 4:  # (out, in, k, k), or (in, out, k, k) at stride 2
                outputs_first = not name.startswith(("g_s", "h_s.0", "h_s.2"))
                transposed = not outputs_first and parameter.shape[-1] == 5
                inputs = parameter.shape[0 if transposed else 1]
                taps = parameter.shape[-1] ** 2 / (4 if transposed else 1)
                parameter.copy_(value * math.sqrt(3 / (inputs * taps)))
            elif "entropy_bottleneck" in name:
                started = 0.0 if "biases" in name or "factors" in name else parameter
                parameter.copy_(started + value * 0.5)
            elif not name.endswith(("beta", "gamma")):
                parameter.copy_(value * 0.2)
            else:  # of GDN, kept as square roots
                parameter.add_(value.abs() * 0.1)
        _last(model.g_a).weight.mul_(y_gain)
        for layer in (m for m in model.g_s if isinstance(m, nn.ConvTranspose2d)):
            layer.weight.mul_(0.4)  # inverse GDN squares: keep the image near [0, 1]
        model.g_s[-1].bias.fill_(0.5)
        if "z" in model.streams:
            _last(model.h_a).weight.mul_(2.0)
            head = getattr(model, "entropy_parameters", model.h_s)
            scales = _last(head).bias[: model.M]
            scales.copy_(uniform([seed, 1], model.M, low=0.05, high=8.0))
    model.solve_quantiles()
    return model.eval()


def _last(network: nn.Sequential) -> nn.Conv2d:
    return [m for m in network if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))][-1]


def make(
    name: str, seed: int = 0, N: int = N, M: int = M, lmbda: float = 0.013, y_gain: float = 8.0
) -> Codec:
    """A tiny random model in eval mode, not frozen, the caller's own."""
    model = fill(models.build(name, N, M), seed, y_gain)
    model.point = OperatingPoint(name, lmbda, "low", N, M)
    return model


@cache
def codec(name: str, seed: int = 0) -> Codec:
    """A tiny frozen model, shared by all tests: they must not change it."""
    return make(name, seed).freeze()


def image(height: int, width: int, seed: int = 0, batch: int = 1) -> Tensor:
    """Blurred blotches and some noise, (batch, 3, height, width) in [0, 1]."""
    coarse = uniform([seed, 2], batch, 3, height // 12 + 2, width // 12 + 2, low=0.0)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    noise = uniform([seed, 3], batch, 3, height, width) * 0.08
    return (smooth + noise).clamp(0, 1).float()


def latents_of(model: Codec, height: int, width: int, seed: int = 0, batch: int = 1) -> dict:
    """Latents without an image: uniform, a few huge, (B, C, h, w) by stream name."""
    shapes = model.latent_shapes(batch, height, width)
    made = {}
    for k, (name, shape) in enumerate(sorted(shapes.items())):
        values = uniform([seed, 4, k], *shape, low=-6, high=6)
        rare = uniform([seed, 5, k], *shape, low=0, high=1) > 0.99
        made[name] = torch.where(rare, values * 1000, values).float()
    return made


def encode_y_hat(model: Codec, latents: dict, gain: float = 1.0) -> tuple[list, Tensor]:
    """Streams, and the y_hat that the encoder itself arrives at."""
    batch = latents["y"].shape[0]
    writers = {name: Writer(tables, batch, g) for name, tables, g in model._parts(Gain(gain))}
    with torch.no_grad():
        y_hat = model.code(writers, latents, {k: v.shape for k, v in latents.items()})
    return [writers[k].finish() for k in model.streams], y_hat


def grid(y_hat: Tensor) -> np.ndarray:
    """y_hat as the integers it stands for, in units of 1/64."""
    scaled = y_hat.double() * 64
    assert torch.equal(scaled, scaled.round())
    return scaled.to(torch.int64).numpy()


def digest(integers: np.ndarray) -> str:
    """SHA-256 of integers of 64 bits, little-endian."""
    return hashlib.sha256(integers.astype("<i8").tobytes()).hexdigest()


def peak_memory() -> int:
    """The largest memory this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
