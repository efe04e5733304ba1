"""What the side information takes away from the latent: moments and correlations.

For the three models with a hyperprior at lambda 0.013, on a built-in photograph: y, and what is
left of it, (y - mean) / scale by the decoder's predictions. Writes side_information.csv.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor

import models
from benchmarks.records import print_table, write_csv
from evaluation.bits import bits_per_position
from models.base import Codec, pad
from models.coding.loop import Coder
from models.coding.orders import everywhere
from models.datasets import sample_photographs
from models.entropy.gaussian import scale_levels
from models.images import to_tensor
from models.presets import STUDIED, short

LMBDA, PHOTOGRAPH = 0.013, "astronaut"
HYPERPRIORS = STUDIED[1:]  # the models with one
ACTIVE = 0.5  # least standard deviation of a channel that carries information
REACH = 4  # positions


class Watcher(Coder):
    """A coder that stores nothing and remembers symbols and indexes, each (1, n, M) per step."""

    def __init__(self) -> None:
        self.symbols: list[Tensor] = []
        self.indexes: list[Tensor] = []

    def code(self, symbols: Tensor, indexes: Tensor) -> Tensor:
        self.symbols.append(symbols)
        self.indexes.append(indexes.clone())
        return symbols


@torch.no_grad()
def look(codec: Codec, pixels: np.ndarray) -> dict[str, Any]:
    """What the coder sees of an image, uint8 (H, W, 3): tensors (M, H/16, W/16).

    "y", the "mean" and "scale" that are predicted, "normalised", which is (y - mean) / scale; and
    "bits", an array (H/16, W/16), see `bits_per_position`. `codec` is one of `HYPERPRIORS`.
    """
    x = to_tensor(pixels)
    latents = codec.analysis(pad(x, codec.downsampling))
    watchers = {key: Watcher() for key in latents}
    y_hat = codec.code(watchers, latents, {key: v.shape for key, v in latents.items()})[0]
    positions = torch.cat(getattr(codec, "order", everywhere)(*y_hat.shape[1:]))

    def grid(steps: list[Tensor]) -> Tensor:
        rows = torch.cat(steps, 1)[0]  # (positions in coding order, M)
        return torch.empty_like(rows).index_copy_(0, positions, rows).T.reshape(y_hat.shape)

    y = latents["y"][0]
    mean = y_hat - grid(watchers["y"].symbols).float()
    scale = scale_levels()[grid(watchers["y"].indexes).long()].float()
    normalised = (y - mean) / scale
    bits = bits_per_position(codec, x)
    return {"y": y, "mean": mean, "scale": scale, "normalised": normalised, "bits": bits}


def wide_values(parts: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Values whose scale is above 1: y over its channel's standard deviation, and normalised.

    The others are mostly rounded to zero, whatever their distribution.
    """
    wide = parts["scale"] > 1
    y = parts["y"] / parts["y"].flatten(1).std(1)[:, None, None]
    return y[wide].numpy(), parts["normalised"][wide].numpy()


def correlations(parts: dict[str, Any]) -> dict[str, np.ndarray]:
    """`correlation` of y, of what is left of it, and of both magnitudes, in active channels."""
    active = parts["y"].flatten(1).std(1) > ACTIVE
    y, left = parts["y"][active], parts["normalised"][active]
    kinds = {"y": y, "normalised y": left, "|y|": y.abs(), "|normalised y|": left.abs()}
    return {kind: correlation(values) for kind, values in kinds.items()}


def correlation(values: Tensor) -> np.ndarray:
    """(9, 9): correlation of values (C, H, W) with those up to `REACH` away, mean over channels.

    The middle is the value itself, 1; above it stands the correlation with what lies below.
    """
    values = values - values.flatten(1).mean(1)[:, None, None]

    def cut(down: int, right: int) -> Tensor:
        """What overlaps with the values shifted by (down, right)."""
        height, width = values.shape[1:]
        rows = slice(max(0, down), height + min(0, down))
        return values[:, rows, max(0, right) : width + min(0, right)]

    result = np.empty((2 * REACH + 1, 2 * REACH + 1))
    for down in range(-REACH, REACH + 1):
        for right in range(-REACH, REACH + 1):
            a, b = cut(down, right), cut(-down, -right)
            product = (a * b).flatten(1).sum(1)
            size = (a.square().flatten(1).sum(1) * b.square().flatten(1).sum(1)).sqrt()
            result[down + REACH, right + REACH] = (product / size).mean()
    return result


def row(name: str, parts: dict[str, Any]) -> dict[str, Any]:
    """A model's line of the table: moments, and correlations with a direct neighbour."""
    cells: dict[str, Any] = {}
    for side, values in zip(("before", "after"), wide_values(parts), strict=True):
        cells[f"std, {side}"] = values.std()
        cells[f"kurtosis, {side}"] = ((values / values.std()) ** 4).mean()
    cells["share with scale > 1"] = (parts["scale"] > 1).float().mean()
    for kind, values in correlations(parts).items():
        cells[f"{kind}, neighbour"] = (values[REACH, REACH - 1] + values[REACH - 1, REACH]) / 2
    return {"model": name} | {key: round(float(value), 3) for key, value in cells.items()}


def run(options: argparse.Namespace) -> int:
    """Look, print and write the table. CheckpointError where a model has no checkpoint."""
    pixels = dict(sample_photographs())[PHOTOGRAPH]
    codecs = {name: models.load(name, LMBDA) for name in HYPERPRIORS}
    result = [row(short(name), look(codec, pixels)) for name, codec in codecs.items()]
    print_table(result)
    write_csv(options.outdir / "side_information.csv", result)
    return 0
