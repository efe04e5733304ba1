"""Generalised divisive normalisation, forward and backward in as few passes as it takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.bounds import lower_bound

# beta and gamma are kept as square roots with a small pedestal, so that they stay
# non-negative and the gradient does not vanish at zero (Balle 2018, "Efficient nonlinear
# transforms for lossy image compression", section 2.2; tensorflow/compression's value).
REPARAM_OFFSET = 2.0**-18
PEDESTAL = REPARAM_OFFSET**2
BETA_MIN = 1e-6
GAMMA_INIT = 0.1
BLOCK_BYTES = 1 << 19  # of one fp32 operand and CPU thread, a fraction of a core's own cache


def _blocks(rows: Tensor) -> int:
    """Rows worked on at a time. On a CPU, as many as stay in the cache from the first operation
    to the last: GDN is bound by memory, not by arithmetic. On a GPU, all."""
    if rows.device.type != "cpu":
        return max(len(rows), 1)
    return max(BLOCK_BYTES * torch.get_num_threads() // (4 * rows.shape[1]), 1)


def _normalise(x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool, keep: bool = False):
    """y = x * n**p with n = beta + gamma x**2, p = -1/2 (GDN) or 1/2 (inverse GDN).

    On rows (pixels, channels). y has the type of x; all between has that of gamma, fp32, since n
    spans decades. Returns y and, if `keep`, n, else None.
    """
    y, size = torch.empty_like(x), _blocks(x)
    norm = torch.empty_like(x, dtype=gamma.dtype) if keep else None
    for start in range(0, len(x), size):
        here = slice(start, start + size)
        part = x[here].to(gamma.dtype)
        n = torch.empty_like(part) if norm is None else norm[here]
        torch.addmm(beta, part.square(), gamma.t(), out=n)
        n = n.to(torch.promote_types(n.dtype, torch.float32))  # bf16 has few digits for a root
        torch.mul(part, n.sqrt() if inverse else n.rsqrt(), out=y[here])
    return y, norm


class _Normalise(torch.autograd.Function):
    """`_normalise` with its gradient: one product forwards, two backwards; keeps x, n, gamma.

    The backward products are in the type of x: like those of the convolutions, bf16 in autocast.
    """

    @staticmethod
    def forward(ctx, x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> Tensor:
        y, norm = _normalise(x, beta, gamma, inverse, keep=True)
        ctx.save_for_backward(x, norm, gamma)
        ctx.inverse = inverse
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, norm, gamma = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grad_beta, grad_gamma = torch.zeros_like(gamma[0]), torch.zeros_like(gamma)
        gamma_as_x, trained = gamma.to(x.dtype), any(ctx.needs_input_grad[1:3])
        size = _blocks(x)
        for start in range(0, len(x), size):
            here = slice(start, start + size)
            g, part, n = grad[here].to(norm.dtype), x[here].to(norm.dtype), norm[here]
            scale = n.rsqrt()
            grad_norm = (g * part).mul_(scale)
            if ctx.inverse:  # dy/dn = x / (2 sqrt n)
                grad_norm.mul_(0.5)
                scale = n * scale  # sqrt n
            else:  # dy/dn = -x / (2 n sqrt n)
                grad_norm.div_(n).mul_(-0.5)
            if trained:
                grad_beta += grad_norm.sum(0)
            grad_norm = grad_norm.to(x.dtype)
            if trained:
                grad_gamma += grad_norm.t() @ part.square().to(x.dtype)
            through_norm = grad_norm @ gamma_as_x  # sum_i dL/dn_i gamma_ij
            torch.addcmul(scale.mul_(g), through_norm, part, value=2.0, out=grad_x[here])
        return grad_x, grad_beta, grad_gamma, None


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

    def effective(self) -> tuple[Tensor, Tensor]:
        """beta (C) and gamma (C, C) of the equation, from what is stored."""
        beta = lower_bound(self.beta, (BETA_MIN + PEDESTAL) ** 0.5).square() - PEDESTAL
        gamma = lower_bound(self.gamma, REPARAM_OFFSET).square() - PEDESTAL
        return beta, gamma

    def forward(self, x: Tensor) -> Tensor:
        beta, gamma = self.effective()
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels)  # a view if channels_last
        with torch.autocast(x.device.type, enabled=False):
            if torch.compiler.is_compiling():  # the compiler fuses what the blocks do by hand
                n = torch.addmm(beta.to(x.dtype), rows.square(), gamma.to(x.dtype).t())
                y = rows * (n.sqrt() if self.inverse else n.rsqrt())
            elif torch.is_grad_enabled():
                y = _Normalise.apply(rows, beta, gamma, self.inverse)
            else:
                y, _ = _normalise(rows, beta, gamma, self.inverse)
        return y.view(batch, height, width, channels).permute(0, 3, 1, 2)
