"""Where the loop gets its means and table indexes from: the three kinds of prior.

code_factorized      one table per channel                            z; y of Factorized
code_gaussian        scales (and means) from z, all at once           Hyperprior
code_with_context    scales and means from z and from y_hat so far    Joint, Checkerboard
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.coding.gain import ONE, Gain
from models.coding.integer import FRACTION_BITS, IntegerContext
from models.coding.loop import Coder, cells, code_latents
from models.coding.orders import AHEAD, REACH, everywhere
from models.entropy.tables import GRID, scale_thresholds


def code_factorized(
    coder: Coder, latents: Tensor | None, shape: tuple[int, ...], offsets: Tensor
) -> Tensor:
    """Code latents (B, C, h, w) under a factorized prior: channel c has table c.

    offsets (C,): the channels' medians in units of 1/64, without the coder's gain. Returns the
    rounded latents.
    """
    index = torch.arange(shape[1], device=offsets.device)
    order = everywhere(*shape[2:])
    params = (offsets, index)
    return code_latents(coder, latents, shape, order, lambda *_: params, offsets.device)


def code_gaussian(
    coder: Coder,
    latents: Tensor | None,
    shape: tuple[int, ...],
    scales: Tensor,
    means: Tensor | None = None,
) -> Tensor:
    """Code latents (B, C, h, w) under Gaussians that are known beforehand; returns y_hat.

    scales and means (B, C, h, w): outputs of an integer network, in units of 2**-12 and of
    1/64. No means: all are zero.
    """
    index = ScaleIndex(scales.device, coder.gain)(scales).flatten(2).mT  # (B, positions, C)
    mean = scales.new_zeros(()) if means is None else means.flatten(2).mT
    order = everywhere(*shape[2:])
    return code_latents(coder, latents, shape, order, lambda *_: (mean, index), scales.device)


def code_with_context(
    coder: Coder,
    latents: Tensor | None,
    shape: tuple[int, ...],
    context: IntegerContext,
    psi: Tensor,
    order: Callable[[int, int], list[Tensor]],
    blind: int = 0,
) -> Tensor:
    """Code latents (B, C, h, w) under Gaussians predicted from the steps before; returns y_hat.

    psi (B, 2C, h, w): the hyperprior's features, in integers. order: one of
    `models.coding.orders`. The first `blind` steps see psi only, their context features are zero.
    """
    height, width = shape[2:]
    prepared = context.prepare(psi)
    scale_index = ScaleIndex(prepared.device, coder.gain)
    steps = order(height, width)
    centres = cells(torch.cat(steps), width).to(prepared.device)
    taps = context.around(centres, width + 2 * REACH).split([len(step) for step in steps])
    group = AHEAD if width > REACH else 1  # narrow grids have fewer steps from row to row
    older: list[Tensor | None] = []

    def params_at(y_hat: Tensor, positions: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if step % group == 0:
            older[:] = context.ahead(y_hat, taps[step : step + group])
        seen = None if step < blind else y_hat
        params = context.at(prepared, seen, positions, taps[step], older[step % group])
        scales, means = params.chunk(2, 2)
        return means, scale_index(scales)

    return code_latents(coder, latents, shape, steps, params_at, prepared.device)


def to_grid(latents: Tensor) -> Tensor:
    """Rounded latents (B, C, h, w), multiples of 1/64, as the integer networks' input."""
    return (latents.double() * GRID).round_()


class ScaleIndex:
    """Integer scales to table indexes: how many thresholds a scale, at the gain, exceeds."""

    def __init__(self, device: torch.device, gain: Gain = ONE):
        self.thresholds = gain.thresholds(scale_thresholds(FRACTION_BITS)).to(device)

    def __call__(self, scales: Tensor) -> Tensor:
        index = torch.bucketize(scales.contiguous(), self.thresholds, out_int32=True)
        return index.to(torch.uint8)  # there are 64 levels, and up to millions of scales
