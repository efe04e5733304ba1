"""The coding path, written once for both directions.

A `Writer` and a `Reader` have the same interface, so the encoder's loop is the decoder's
loop: the only difference is whether there are latents to quantise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from models.coding.gain import ONE, Gain
from models.coding.orders import REACH
from models.entropy.tables import GRID

# params_at(y_hat, positions, step) -> (means in units of 1/64, indexes of tables), each
# (B, n, C) or broadcastable to it; y_hat is the padded grid of the steps before.
ParamsAt = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


class Coder(Protocol):
    """What the loop needs of a `Writer` or a `Reader`. `gain`: at which the latents are coded."""

    gain: Gain = ONE

    def code(self, symbols: Tensor | None, indexes: Tensor) -> Tensor:
        """Write symbols (B, n, C) by the tables indexes (B, n, C), or read them (None)."""
        ...


def cells(positions: Tensor, width: int) -> Tensor:
    """Positions (n,) of an unpadded grid in the grid padded by `REACH` on each side, (n,)."""
    row, column = positions // width, positions % width
    return (row + REACH) * (width + 2 * REACH) + column + REACH


def code_latents(
    coder: Coder,
    latents: Tensor | None,
    shape: Sequence[int],
    order: list[Tensor],
    params_at: ParamsAt,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Code latents (B, C, H, W) step by step; None to read them. Returns y_hat, float32.

    y_hat is exact: a multiple of 1/64, the same numbers on every machine, whatever the gain.
    """
    gain = coder.gain
    batch, channels, height, width = shape
    padded = (height + 2 * REACH) * (width + 2 * REACH)
    y_hat = torch.zeros(batch, padded, channels, dtype=torch.float64, device=device)
    rows = None if latents is None else latents.flatten(2).transpose(1, 2).contiguous()
    for step, positions in enumerate(order):
        positions = positions.to(device)
        mean, index = params_at(y_hat, positions, step)
        mean = gain.means(mean)
        index = index.expand(batch, len(positions), channels)
        symbols = None
        if rows is not None:
            symbols = gain.symbols(rows.index_select(1, positions), mean)
        symbols = coder.code(symbols, index)
        y_hat[:, cells(positions, width)] = gain.y_hat(symbols, mean)
    grid = y_hat.view(batch, height + 2 * REACH, width + 2 * REACH, channels)
    inside = grid[:, REACH:-REACH, REACH:-REACH]
    return inside.permute(0, 3, 1, 2).float().div_(GRID)  # exact: 24 bits at most
