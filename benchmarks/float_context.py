"""How many latents break when the context model's parameters are floats.

An encoder may compute the parameters of all positions in one pass; the decoder goes position by
position. In floating point the two differ now and then in the table that they choose, and from
there on the decoder reads garbage. Counts, for Joint's checkpoints, the images in which at least
one table index or mean differs. As in the original study, the symbols are round(y).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import models
from evaluation.photographs import dataset_name, open_photographs
from models.base import Codec, pad
from models.cli import Progress
from models.coding.orders import REACH, raster
from models.entropy.gaussian import scale_levels
from models.entropy.tables import GRID
from models.images import to_tensor
from models.presets import OPERATING_POINTS, STUDIED

JOINT = STUDIED[2]
Parameters = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="DIR", help="test images; none: built-in photographs")
    add("--every", type=int, default=1, metavar="K", help="take each K-th image (default: all)")


def padded(y: Tensor) -> Tensor:
    """y (B, M, H, W) as the coding loop holds it: (B, cells, M), in units of 1/64."""
    return F.pad(y, (REACH,) * 4).permute(0, 2, 3, 1).flatten(1, 2).double().contiguous() * GRID


@torch.no_grad()
def in_floats(codec: Codec, z_hat: Tensor) -> Parameters:
    """A function of (y_hat, positions), all or one: means, in units of 1/64, and table indexes."""
    context, psi = codec.context_prediction, codec.h_s(z_hat)
    width = psi.shape[-1]
    levels = scale_levels()
    thresholds = (levels[1:] * levels[:-1]).sqrt().float()

    @torch.no_grad()
    def parameters_at(y_hat: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        grid = y_hat.unflatten(1, (-1, width + 2 * REACH)).permute(0, 3, 1, 2)
        here = psi
        if len(positions) == 1:  # its 5x5 neighbourhood, as a decoder would
            row, column = divmod(int(positions), width)
            grid = grid[:, :, row : row + 5, column : column + 5]
            here = psi[:, :, row : row + 1, column : column + 1]
        seen = F.conv2d(grid.float() / GRID, context.weight * context.mask, context.bias)
        outputs = codec.entropy_parameters(torch.cat([here, seen], 1)).flatten(2).mT
        scales, means = outputs.chunk(2, 2)
        return means.round().double() * GRID, torch.bucketize(scales.contiguous(), thresholds)

    return parameters_at


def differences(parameters_at: Parameters, y: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) each: how many means and indexes of one pass and of the serial computation differ."""
    y_hat, size = padded(y), y.shape[-2:]
    steps = [parameters_at(y_hat, position) for position in raster(*size)]
    means, indexes = (torch.cat(parts, 1) for parts in zip(*steps, strict=True))
    at_once = parameters_at(y_hat, torch.arange(size.numel()))
    pairs = zip(at_once, (means, indexes), strict=True)
    wrong_means, wrong_indexes = ((a != b).flatten(1).sum(1) for a, b in pairs)
    return wrong_means, wrong_indexes


@torch.no_grad()
def run(options: argparse.Namespace) -> list[dict]:
    """A row for each checkpoint of Joint."""
    photographs = open_photographs(options.dataset_path)[:: max(options.every, 1)]
    lambdas = [point.lmbda for point in OPERATING_POINTS if point.model == JOINT]
    rows = []
    with Progress("floats", len(lambdas) * len(photographs), "latent") as progress:
        for lmbda in lambdas:
            codec, wrong = models.load(JOINT, lmbda), []
            for photograph in photographs:
                latents = codec.analysis(pad(to_tensor(photograph.read()), codec.downsampling))
                z_hat = codec.entropy_bottleneck(latents["z"], "round")[0]
                both = differences(in_floats(codec, z_hat), latents["y"].round())
                wrong.append([int(count) for count in both])
                progress.step()
            means, indexes = map(sum, zip(*wrong, strict=True))
            rows.append({
                "lmbda": f"{lmbda:g}", "dataset": dataset_name(options.dataset_path),
                "latents": len(wrong), "broken": sum(any(counts) for counts in wrong),
                "indexes": indexes, "means": means,
            })  # fmt: skip
    return rows
