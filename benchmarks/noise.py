"""The rate under noise, which training lowers, beside that of the same latents rounded.

-log2 of the likelihoods of an image's latents, once with uniform noise (Balle et al. 2017,
section 3), once rounded as they are coded, for every checkpoint of the study. A latent that is
always rounded to zero costs nothing in a file; under noise, at the lowest scale of 0.11, it costs
0.15 bit, which makes 0.11 bpp for 192 such channels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import models
from evaluation.photographs import dataset_name, open_photographs
from evaluation.points import likelihood_bits
from models.base import Codec, pad
from models.cli import Progress
from models.images import to_tensor
from models.presets import OPERATING_POINTS


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="DIR", help="test images; none: built-in photographs")
    add("--every", type=int, default=1, metavar="K", help="take each K-th image (default: all)")


@torch.no_grad()
def rates(codec: Codec, pixels: np.ndarray) -> list[float]:
    """Bits per pixel of an image: rounded, then under one draw of seeded noise."""
    latents = codec.analysis(pad(to_tensor(pixels), codec.downsampling))
    torch.manual_seed(0)
    parts = (codec.likelihoods(latents, mode)[1] for mode in ("round", "noise"))
    count = pixels.shape[0] * pixels.shape[1]
    return [likelihood_bits({"likelihoods": part}) / count for part in parts]


def run(options: argparse.Namespace) -> list[dict]:
    """A row for each checkpoint of the study."""
    photographs = open_photographs(options.dataset_path)[:: max(options.every, 1)]
    rows = []
    with Progress("noise", len(OPERATING_POINTS), "checkpoint") as progress:
        for point in OPERATING_POINTS:
            codec = models.load(point.model, point.lmbda)
            bpp = np.array([rates(codec, photograph.read()) for photograph in photographs])
            above = 100 * (bpp[:, 1] / bpp[:, 0] - 1)
            names = ("rounded_bpp", "noise_bpp", "mean_percent", "least_percent", "most_percent")
            values = (*bpp.mean(0), above.mean(), above.min(), above.max())
            rows.append({
                "model": point.model, "lmbda": f"{point.lmbda:g}",
                "dataset": dataset_name(options.dataset_path), "images": len(photographs),
                **{name: f"{value:.4f}" for name, value in zip(names, values, strict=True)},
            })  # fmt: skip
            progress.step()
    return rows
