"""A lower bound whose gradient can leave the bound again."""

from __future__ import annotations

import torch
from torch import Tensor


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        # A plain clamp has zero gradient below the bound and would never come back: let
        # a gradient pass that moves x upwards (descent goes against the gradient).
        passes = (x >= ctx.bound) | (grad < 0)
        return grad * passes, None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound), with the identity gradient where x is allowed or is pushed upwards.

    Any shape in, the same shape out. Source: the reference implementation of Balle et
    al. 2017 (tensorflow/compression, `lower_bound`), "identity if towards" gradient.
    """
    return _LowerBound.apply(x, bound)
