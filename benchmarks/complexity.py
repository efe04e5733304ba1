"""Parameters and multiply-accumulate operations of the four models, by two conventions.

    python -m benchmarks.complexity        # writes statistics/macs.csv

thop's convention, that of the original report, looks at modules whose type is exactly Conv2d or
ConvTranspose2d and charges both at their output: output elements x input channels x taps. GDN,
masked convolutions and the densities are not seen. A transposed convolution of stride 2 is
thereby counted four times: each of its input elements meets all taps once, and its output has
four times as many elements. The true counts charge it at its input, see every convolution, take
the masked taps off, and count GDN's products of channels with channels.

Every count is proportional to the number of pixels, so an image of 64x64 is run and scaled up.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import models
from models.files import csv_text, write_text
from models.layers import GDN, MaskedConv2d
from models.presets import CHANNELS

OUT = Path("statistics/macs.csv")
BATCH = (64, 256, 256)  # the training batch that the original's first counts are of
KODAK = (1, 512, 768)
SIDE = 64
STAGES = {
    "g_a": "transforms",
    "g_s": "transforms",
    "h_a": "hyperprior",
    "h_s": "hyperprior",
    "context_prediction": "context",
    "entropy_parameters": "context",
}
COLUMNS = (
    "model", "N", "M", "batch", "height", "width", "parameters", "thop_parameters", "thop_macs",
    "transforms_macs", "gdn_macs", "hyperprior_macs", "context_macs", "total_macs",
)  # fmt: skip


@dataclass
class Count:
    """Of one forward pass. `true`: MACs by stage, and of GDN."""

    parameters: int
    thop_parameters: int
    thop_macs: int
    true: Counter


def _taps(layer: nn.Conv2d | nn.ConvTranspose2d) -> int:
    return layer.kernel_size[0] * layer.kernel_size[1]


def count(name: str, N: int, M: int, size: tuple[int, int, int]) -> Count:
    """Count a forward pass on `size` = (batch, height, width) RGB images, multiples of 64."""
    model = models.build(name, N, M).eval()
    x = torch.zeros(1, 3, SIDE, SIDE)
    counted = {n: m for n, m in model.named_modules() if type(m) in (nn.Conv2d, nn.ConvTranspose2d)}
    made = Count(
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for m in counted.values() for p in m.parameters()),
        0,
        Counter(),
    )
    # thop saw the original's forward pass, in which a checkerboard model predicts from its
    # entropy parameters twice, as ours does with rounding; noise needs one pass, as coding does.
    with torch.no_grad():
        handles = [m.register_forward_hook(_thop(made)) for m in counted.values()]
        model(x, quantization="round")
        for handle in handles:
            handle.remove()
        for n, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, GDN)):
                module.register_forward_hook(_true(made, STAGES[n.split(".")[0]]))
        model(x, quantization="noise")
    scale = size[0] * size[1] * size[2] // SIDE**2
    made.thop_macs *= scale
    made.true = Counter({stage: macs * scale for stage, macs in made.true.items()})
    return made


def _thop(made: Count):
    def hook(layer, inputs: tuple[Tensor], output: Tensor) -> None:
        made.thop_macs += output.numel() * layer.in_channels * _taps(layer)

    return hook


def _true(made: Count, stage: str):
    def hook(layer, inputs: tuple[Tensor], output: Tensor) -> None:
        if isinstance(layer, GDN):
            made.true["gdn"] += output.numel() * output.shape[1]
        elif isinstance(layer, nn.ConvTranspose2d):
            made.true[stage] += inputs[0].numel() * layer.out_channels * _taps(layer)
        else:
            # Both masks, causal and checkerboard, keep 12 of the 25 taps.
            taps = 12 if isinstance(layer, MaskedConv2d) else _taps(layer)
            made.true[stage] += output.numel() * layer.in_channels * taps

    return hook


def measured() -> list[dict[str, str]]:
    """One row for each model, width and image size."""
    rows = []
    for model, rates in CHANNELS.items():
        for rate, (N, M) in rates.items():
            for size in (BATCH, KODAK) if rate == "low" else (KODAK,):
                found = count(model, N, M, size)
                values = (
                    model, N, M, *size, found.parameters, found.thop_parameters, found.thop_macs,
                    found.true["transforms"], found.true["gdn"], found.true["hyperprior"],
                    found.true["context"], found.true.total(),
                )  # fmt: skip
                rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.complexity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    write_text(OUT, csv_text(measured(), COLUMNS))
    print(f"Wrote {OUT}.")


if __name__ == "__main__":
    main()
