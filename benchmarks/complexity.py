"""Parameters and multiply-accumulate operations of the four models, by two conventions.

Writes macs.csv. thop's convention, that of the original report, looks at modules whose type is
exactly Conv2d or ConvTranspose2d and charges both at their output: output elements x input
channels x taps. GDN, masked convolutions and the densities are not seen. A transposed convolution
of stride 2 is thereby counted four times: each of its input elements meets all taps once, and its
output has four times as many elements. The true counts charge it at its input, see every
convolution, take the masked taps off, and count GDN's products of channels with channels.

Every count is proportional to the number of pixels, so an image of 64x64 is run and scaled up.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import models
from benchmarks.records import write_csv
from models.layers import GDN, MaskedConv2d
from models.presets import CHANNELS

BATCH = (64, 256, 256)  # the training batch that the original's first counts are of
KODAK = (1, 512, 768)
SIDE = 64
STAGES = {
    "g_a": "transforms", "g_s": "transforms", "h_a": "hyperprior", "h_s": "hyperprior",
    "context_prediction": "context", "entropy_parameters": "context",
}  # fmt: skip


@dataclass
class Count:
    """Of one forward pass. `true`: MACs by stage, and of GDN."""

    parameters: int
    thop_parameters: int
    thop_macs: int
    true: Counter


def count(name: str, N: int, M: int, size: tuple[int, int, int]) -> Count:
    """Count a forward pass on `size` = (batch, height, width) RGB images, multiples of 64."""
    model = models.build(name, N, M).eval()
    x = torch.zeros(1, 3, SIDE, SIDE)
    thop, true = Counter(), Counter()
    modules = dict(model.named_modules())
    plain = {n: m for n, m in modules.items() if type(m) in (nn.Conv2d, nn.ConvTranspose2d)}
    counted = (nn.Conv2d, nn.ConvTranspose2d, GDN)
    with torch.no_grad():
        # thop saw the original's forward pass, in which a checkerboard model predicts from its
        # entropy parameters twice, as ours does with rounding; noise needs one pass, as coding.
        handles = [m.register_forward_hook(_hook(thop, "", _thop_macs)) for m in plain.values()]
        model(x, quantization="round")
        for handle in handles:
            handle.remove()
        for place, layer in modules.items():
            if isinstance(layer, counted):
                stage = "gdn" if isinstance(layer, GDN) else STAGES[place.split(".")[0]]
                layer.register_forward_hook(_hook(true, stage, _true_macs))
        model(x, quantization="noise")
    scale = size[0] * size[1] * size[2] // SIDE**2
    return Count(
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for m in plain.values() for p in m.parameters()),
        scale * thop.total(),
        Counter({stage: macs * scale for stage, macs in true.items()}),
    )


def _hook(counts: Counter, stage: str, macs: Callable) -> Callable:
    """A hook that adds a layer's macs(layer, input, output) to those of its stage."""

    def hook(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        counts[stage] += macs(layer, inputs[0], output)

    return hook


def _taps(layer: nn.Conv2d | nn.ConvTranspose2d) -> int:
    return layer.kernel_size[0] * layer.kernel_size[1]


def _thop_macs(layer: nn.Module, x: Tensor, output: Tensor) -> int:
    return output.numel() * layer.in_channels * _taps(layer)


def _true_macs(layer: nn.Module, x: Tensor, output: Tensor) -> int:
    if isinstance(layer, GDN):
        return output.numel() * output.shape[1]
    if isinstance(layer, nn.ConvTranspose2d):
        return x.numel() * layer.out_channels * _taps(layer)
    # Both masks, causal and checkerboard, keep 12 of the 25 taps.
    taps = 12 if isinstance(layer, MaskedConv2d) else _taps(layer)
    return output.numel() * layer.in_channels * taps


def measured() -> list[dict]:
    """One row for each model, width and image size."""
    rows = []
    for model, rates in CHANNELS.items():
        for rate, (N, M) in rates.items():
            for size in (BATCH, KODAK) if rate == "low" else (KODAK,):
                counts = count(model, N, M, size)
                row = {"model": model, "N": N, "M": M}
                row |= dict(zip(("batch", "height", "width"), size, strict=True))
                row |= {name: getattr(counts, name)
                        for name in ("parameters", "thop_parameters", "thop_macs")}  # fmt: skip
                for stage in ("transforms", "gdn", "hyperprior", "context"):
                    row[f"{stage}_macs"] = counts.true[stage]
                rows.append(row | {"total_macs": counts.true.total()})
    return rows


def run(options: argparse.Namespace) -> int:
    """Count and write."""
    write_csv(options.outdir / "macs.csv", measured())
    return 0
