"""Coding orders: which positions of the latent are coded together, and when.

An order is a list of steps; a step is a LongTensor of positions, row * width + column.
Positions of one step may depend on earlier steps only. For a 3x5 latent:

    everywhere    raster              wavefront          checkerboard
    0 0 0 0 0     0  1  2  3  4       0 1 2 3  4         0 1 0 1 0
    0 0 0 0 0     5  6  7  8  9       3 4 5 6  7         1 0 1 0 1
    0 0 0 0 0     10 11 12 13 14      6 7 8 9 10         0 1 0 1 0
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers import parity

REACH = 2  # of the 5x5 context kernels
AHEAD = 4  # steps of a wavefront for which the products of older taps are made at once


def everywhere(height: int, width: int) -> list[Tensor]:
    """All positions in one step, (height * width,): nothing depends on anything."""
    return [torch.arange(height * width)]


def raster(height: int, width: int) -> list[Tensor]:
    """One position a step, (1,), row by row: the slow reference of the wavefront."""
    return list(torch.arange(height * width).split(1))


def wavefront(height: int, width: int) -> list[Tensor]:
    """Positions with equal column + 3 * row, in at most width + 3 * (height - 1) steps, (n,) each.

    The furthest that the causal 5x5 mask looks ahead is one row up and two columns to the
    right: that position has t - 3 + 2 = t - 1, one step earlier; all others are earlier
    still, so positions of equal t are independent.
    """
    time = torch.arange(width)[None, :] + (REACH + 1) * torch.arange(height)[:, None]
    return _by_step(time)


def checkerboard(height: int, width: int) -> list[Tensor]:
    """Anchors (row + column even), then non-anchors, (n,) each."""
    return _by_step(parity(height, width))


def _by_step(time: Tensor) -> list[Tensor]:
    time = time.flatten()
    order = torch.argsort(time, stable=True)
    sizes = torch.bincount(time)
    return [step for step in order.split(sizes.tolist()) if len(step)]
