"""Strided convolutions and masked convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride) for H, W multiples of stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def deconv(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """(B, inputs, H, W) -> (B, outputs, H*stride, W*stride)."""
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, output_padding=stride - 1
    )


def causal_mask(kernel: int = 5) -> Tensor:
    """Mask "A": 1 where a tap comes before the centre in raster order; (kernel, kernel).

        1 1 1 1 1
        1 1 1 1 1
        1 1 0 0 0
        0 0 0 0 0
        0 0 0 0 0

    Source: van den Oord et al. 2016, section 3.4; Minnen et al. 2018, section 3.
    """
    centre = kernel * kernel // 2
    return (torch.arange(kernel * kernel) < centre).float().view(kernel, kernel)


def parity(height: int, width: int) -> Tensor:
    """(row + column) mod 2 of a grid, (height, width): 0 for anchors, 1 for non-anchors.

    Source: He et al. 2021, section 3.2.
    """
    return (torch.arange(height)[:, None] + torch.arange(width)) % 2


def checkerboard_mask(kernel: int = 5) -> Tensor:
    """1 for every second tap, 0 for the centre; (kernel, kernel).

        0 1 0 1 0
        1 0 1 0 1
        0 1 0 1 0
        1 0 1 0 1
        0 1 0 1 0

    A non-anchor then sees anchors only. Source: He et al. 2021, figure 3.
    """
    return parity(kernel, kernel).float()


class MaskedConv2d(nn.Conv2d):
    """A convolution whose kernel is multiplied by `mask` in the forward pass.

    (B, inputs, H, W) -> (B, outputs, H, W). The weight itself is never changed: hidden
    taps get zero gradient and keep whatever they hold.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, mask: Tensor):
        super().__init__(inputs, outputs, mask.shape[-1], padding=mask.shape[-1] // 2)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class CausalConv2d(MaskedConv2d):
    """A masked convolution with `causal_mask`, which computes its 12 taps of 25 only.

    (B, inputs, H, W) -> (B, outputs, H, W). The taps are the rows above, all columns, and of the
    row itself the columns on the left: two small convolutions in place of a large one most of
    whose products are with zeros.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, causal_mask())

    def forward(self, x: Tensor) -> Tensor:
        k = self.kernel_size[0] // 2
        above, beside = self.weight[:, :, :k], self.weight[:, :, k : k + 1, :k]
        # A padding of -1 leaves out the last row, or column, which nothing comes after.
        y = F.conv2d(F.pad(x, (k, k, k, -1)), above, self.bias)
        return y + F.conv2d(F.pad(x, (k, -1, 0, 0)), beside)
