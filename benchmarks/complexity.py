"""Parameters and multiply-accumulate operations of the four models, by two conventions.

Writes macs.csv. thop's convention, that of the original report, looks at modules whose type is
exactly Conv2d or ConvTranspose2d and charges both at their output: output elements x input
channels x taps. GDN, masked convolutions and the densities are not seen. A transposed convolution
of stride 2 is thereby counted four times: each of its input elements meets all taps once, and its
output has four times as many elements. The true counts, by rules of our own, charge it at its
input, see every convolution, take the masked taps off, and count GDN's products of channels with
channels.

Every count is proportional to the number of pixels, so an image of 64x64 is run and scaled up.
"""

from __future__ import annotations

import argparse

import thop
import torch
from torch import Tensor, nn

import models
from models.layers import GDN, CausalConv2d, MaskedConv2d
from models.presets import CHANNELS

CSV = "macs.csv"
BATCH = (64, 256, 256)  # the training batch that the original's first counts are of
KODAK = (1, 512, 768)
SIDE = 64
STAGES = {
    "g_a": "transforms", "g_s": "transforms", "h_a": "hyperprior", "h_s": "hyperprior",
    "context_prediction": "context", "entropy_parameters": "context",
}  # fmt: skip


def transposed(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    """MACs of a transposed convolution; as thop wants them, like those below."""
    layer.total_ops += inputs[0].numel() * layer.weight[0].numel()


def gdn(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    layer.total_ops += output.numel() * output.shape[1]


def masked(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    layer.total_ops += output.numel() * layer.in_channels * 12  # taps that both masks leave of 25


RULES = {nn.ConvTranspose2d: transposed, GDN: gdn, MaskedConv2d: masked, CausalConv2d: masked}


def count(name: str, N: int, M: int, size: tuple[int, int, int]) -> dict[str, int]:
    """Parameters and MACs of a forward pass on `size` = (batch, height, width) RGB images, whose
    sides are multiples of 64: columns of macs.csv."""
    model = models.build(name, N, M).eval()
    x = torch.zeros(1, 3, SIDE, SIDE)
    scale = size[0] * size[1] * size[2] // SIDE**2
    # thop saw the original's forward pass, in which a checkerboard model predicts from its
    # entropy parameters twice, as ours does with rounding; noise needs one pass, as coding.
    thop_macs, thop_parameters = thop.profile(model, (x, "round"), verbose=False)
    true = dict.fromkeys(("transforms_macs", "gdn_macs", "hyperprior_macs", "context_macs"), 0)
    options = {"custom_ops": RULES, "verbose": False, "ret_layer_info": True}
    *_, parts = thop.profile(model, (x, "noise"), **options)
    for part, (macs, _, layers) in parts.items():
        own = layers or {"": (macs, 0, {})}  # a single layer, such as the context's
        for layer, (macs, *_) in own.items():
            kind = model.get_submodule(f"{part}.{layer}".rstrip("."))
            if part in STAGES:
                stage = "gdn" if isinstance(kind, GDN) else STAGES[part]
                true[f"{stage}_macs"] += scale * int(macs)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "thop_parameters": int(thop_parameters), "thop_macs": scale * int(thop_macs),
        **true, "total_macs": sum(true.values()),
    }  # fmt: skip


def run(options: argparse.Namespace) -> list[dict]:
    """A row for each model, width and image size."""
    return [
        {"model": model, "N": N, "M": M, "batch": size[0], "height": size[1], "width": size[2],
         **count(model, N, M, size)}
        for model, widths in CHANNELS.items()
        for rate, (N, M) in widths.items()
        for size in ((BATCH, KODAK) if rate == "low" else (KODAK,))
    ]  # fmt: skip
