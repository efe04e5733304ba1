"""Generalised divisive normalisation, forward and backward in as few passes as it takes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.bounds import lower_bound

# beta and gamma are kept as square roots with a small pedestal, so that they stay
# non-negative and the gradient does not vanish at zero (Balle 2018, "Efficient nonlinear
# transforms for lossy image compression", section 2.2; tensorflow/compression's value).
REPARAM_OFFSET = 2.0**-18
PEDESTAL = REPARAM_OFFSET**2
BETA_MIN = 1e-6
GAMMA_INIT = 0.1
BLOCK_BYTES = 3 << 17  # of one operand and thread, a fraction of a core's own cache


class _Normalise(torch.autograd.Function):
    """y = x * n**p with n = beta + gamma x**2, p = -1/2 (GDN) or 1/2 (inverse GDN).

    Works on rows (pixels, channels): one product forwards, two backwards, and only x, n
    and gamma are kept. Everything is fp32 also under autocast, since n spans decades.
    """

    @staticmethod
    def forward(ctx, x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> Tensor:
        norm = torch.addmm(beta, x.square(), gamma.t())  # (P, C)
        ctx.save_for_backward(x, norm, gamma)
        ctx.inverse = inverse
        return x * (norm.sqrt() if inverse else norm.rsqrt())

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, norm, gamma = ctx.saved_tensors
        rsqrt = norm.rsqrt()
        grad_x = grad * x  # holds g x until the last line
        if ctx.inverse:  # dy/dn = x / (2 sqrt n)
            grad_norm = grad_x.mul_(rsqrt).mul_(0.5)
            scale = norm.mul(rsqrt)  # sqrt n
        else:  # dy/dn = -x / (2 n sqrt n)
            grad_norm = grad_x.mul_(rsqrt).div_(norm).mul_(-0.5)
            scale = rsqrt
        grad_beta = grad_norm.sum(0)
        grad_gamma = grad_norm.t() @ x.square()
        through_norm = grad_norm @ gamma  # (P, C): sum_i dL/dn_i gamma_ij
        return torch.addcmul(grad * scale, through_norm, x, value=2.0), grad_beta, grad_gamma, None


def _normalise_in_blocks(x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> Tensor:
    """The same without gradients, (B, C, H, W) in channels_last, on a CPU.

    In blocks of pixels that stay in the cache from the square to the product: this is bound
    by memory, not by arithmetic.
    """
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)  # a view
    out = torch.empty_like(rows)
    block = max(BLOCK_BYTES * torch.get_num_threads() // (4 * channels), 1)
    for part, result in zip(rows.split(block), out.split(block), strict=True):
        norm = torch.addmm(beta, part.square(), gamma.t())
        torch.mul(part, norm.sqrt_() if inverse else norm.rsqrt_(), out=result)
    return out.view(batch, height, width, channels).permute(0, 3, 1, 2)


class GDN(nn.Module):
    """y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j**2), or times the root if `inverse`.

    Input and output (B, C, H, W), fp32. Parameters beta (C) and gamma (C, C) are stored
    as in CompressAI (square root plus pedestal), so that weights are interchangeable.
    Source: Balle et al. 2017, section 2, equations 1 and 2 (with alpha = 2, epsilon =
    1/2), and its approximate inverse, section 2.
    """

    def __init__(self, channels: int, inverse: bool = False):
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.ones(channels).add(PEDESTAL).sqrt())
        self.gamma = nn.Parameter((GAMMA_INIT * torch.eye(channels)).add(PEDESTAL).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        beta = lower_bound(self.beta, (BETA_MIN + PEDESTAL) ** 0.5).square() - PEDESTAL
        gamma = lower_bound(self.gamma, REPARAM_OFFSET).square() - PEDESTAL
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if not torch.is_grad_enabled():
                if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
                    return _normalise_in_blocks(x, beta, gamma, self.inverse)
                norm = F.conv2d(x.square(), gamma[:, :, None, None], beta)
                return x * (norm.sqrt_() if self.inverse else norm.rsqrt_())
            batch, channels, height, width = x.shape
            rows = x.permute(0, 2, 3, 1).reshape(-1, channels)  # a view if channels_last
            y = _Normalise.apply(rows, beta, gamma, self.inverse)
            return y.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.beta.numel()}, inverse={self.inverse}"
