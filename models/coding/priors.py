"""Where the loop gets its means and table indexes from: the two kinds of prior."""

from __future__ import annotations

import torch
from torch import Tensor

from models.coding.integer import FRACTION_BITS
from models.coding.loop import Coder, code_latents
from models.coding.orders import everywhere
from models.entropy.tables import GRID, scale_thresholds


def code_factorized(
    coder: Coder, latents: Tensor | None, shape: tuple[int, ...], offsets: Tensor
) -> Tensor:
    """Code latents (B, C, h, w) under a factorized prior: channel c has table c.

    offsets (C,): the channels' medians in units of 1/64. Returns the rounded latents.
    """
    index = torch.arange(shape[1], device=offsets.device)
    order = everywhere(*shape[2:])
    params = (offsets, index)
    return code_latents(coder, latents, shape, order, lambda *_: params, offsets.device)


def to_grid(latents: Tensor) -> Tensor:
    """Rounded latents (B, C, h, w), multiples of 1/64, as the integer networks' input."""
    return (latents.double() * GRID).round_()


class ScaleIndex:
    """Integer scales to table indexes: the number of thresholds that a scale exceeds."""

    def __init__(self, device: torch.device):
        self.thresholds = scale_thresholds(FRACTION_BITS).to(device)

    def __call__(self, scales: Tensor) -> Tensor:
        index = torch.bucketize(scales.contiguous(), self.thresholds, out_int32=True)
        return index.to(torch.uint8)  # there are 64 levels, and up to millions of scales
