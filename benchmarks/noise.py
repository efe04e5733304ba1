"""The rate under noise, which training lowers, beside that of the same latents rounded.

-log2 of the likelihoods of an image's latents, once with uniform noise (Balle et al. 2017,
section 3), once rounded as they are coded, for every checkpoint of the study. A latent that is
always rounded to zero costs nothing in a file; under noise, at the lowest scale of 0.11, it costs
0.15 bit, which makes 0.11 bpp for 192 such channels.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from benchmarks.records import print_table, write_csv
from evaluation.photographs import dataset_name, open_photographs
from evaluation.points import likelihood_bits
from models import checkpoint
from models.base import Codec, pad
from models.cli import Progress
from models.images import to_tensor
from models.presets import OPERATING_POINTS


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="DIR", help="test images; none: built-in photographs")
    add("--every", type=int, default=1, metavar="K", help="take each K-th image (default: all)")


@torch.no_grad()
def rates(codec: Codec, x: torch.Tensor) -> list[float]:
    """Bits of an image x (1, 3, H, W), padded: rounded, then under one draw of seeded noise."""
    latents = codec.analysis(pad(x, codec.downsampling))
    torch.manual_seed(0)
    return [
        likelihood_bits({"likelihoods": codec.likelihoods(latents, mode)[1]})
        for mode in ("round", "noise")
    ]


def run(options: argparse.Namespace) -> int:
    """Measure all checkpoints, print and write noise.csv, one row each."""
    photographs = open_photographs(options.dataset_path)[:: max(options.every, 1)]
    rows = []
    with Progress("noise", len(OPERATING_POINTS), "checkpoint") as progress:
        for point in OPERATING_POINTS:
            codec = checkpoint.load(checkpoint.find(point.model, lmbda=point.lmbda)[-1])
            bits = [rates(codec, to_tensor(photograph.read())) for photograph in photographs]
            areas = [photograph.width * photograph.height for photograph in photographs]
            above = [100 * (noise / rounded - 1) for rounded, noise in bits]
            means = (
                statistics.fmean(bit[k] / area for bit, area in zip(bits, areas, strict=True))
                for k in range(2)
            )
            names = ("rounded_bpp", "noise_bpp", "mean_percent", "least_percent", "most_percent")
            values = (*means, statistics.fmean(above), min(above), max(above))
            rows.append({
                "model": point.model, "lmbda": f"{point.lmbda:g}",
                "dataset": dataset_name(options.dataset_path), "images": len(photographs),
                **{name: f"{value:.4f}" for name, value in zip(names, values, strict=True)},
            })  # fmt: skip
            progress.step()
    print_table(rows)
    write_csv(options.outdir / "noise.csv", rows)
    return 0
