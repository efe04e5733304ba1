"""The rate-distortion loss."""

from __future__ import annotations

import torch
from torch import Tensor

STRIDE = 16  # pixels for one position of y


def rate_distortion(
    output: dict, x: Tensor, lmbda: float, metric: str = "mse"
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, R in bits per pixel, and the mean square error of values in [0, 1]: scalars, means over
    the batch. The loss is lambda * 255**2 * MSE + R, or lambda * (1 - MS-SSIM) + R.

    output: what a codec's `forward` returns for x (B, 3, H, W) in [0, 1]. Without x_hat, for y
    (B, M, H/16, W/16) as x, the distortion is a constant: the loss is R, the mean square error NaN.
    In fp32. Balle et al. 2018, equation 3; the factors are CompressAI's, so that lambdas mean the
    same. metric: mse or ms-ssim.
    """
    with torch.autocast(x.device.type, enabled=False):
        if "x_hat" not in output:
            bpp = rate(output, x[:, 0].numel() * STRIDE**2)
            return bpp, bpp.detach(), torch.full_like(bpp, torch.nan)
        x, x_hat = x.float(), output["x_hat"].float()
        bpp = rate(output, x[:, 0].numel())
        mse = torch.mean((x_hat - x) ** 2)
        distortion = 255**2 * mse
        if metric == "ms-ssim":
            from pytorch_msssim import ms_ssim  # not needed for mse

            distortion = 1 - ms_ssim(x_hat, x, data_range=1.0)
        return lmbda * distortion + bpp, bpp.detach(), mse.detach()


def rate(output: dict, pixels: int) -> Tensor:
    """Bits per pixel, a scalar, of the likelihoods that a codec gives for so many pixels."""
    bits = [-torch.log2(p.float()).sum() for p in output["likelihoods"].values()]
    return torch.stack(bits).sum() / pixels
