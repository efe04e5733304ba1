"""The rate-distortion loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """Scalars of a batch: loss, rate in bits per pixel, mean square error of values in [0, 1]."""

    loss: Tensor
    bpp: Tensor
    mse: Tensor


class RateDistortion:
    """lambda * 255**2 * MSE + R, or lambda * (1 - MS-SSIM) + R; R in bits per pixel.

    Balle et al. 2018, equation 3, with images in [0, 1]; the factors are CompressAI's, so that
    lambdas mean the same. Computed in fp32. Averages over the batch. `metric`: mse or ms-ssim.
    """

    def __init__(self, lmbda: float, metric: str = "mse"):
        self.lmbda = lmbda
        self.ms_ssim = None
        if metric == "ms-ssim":
            from pytorch_msssim import ms_ssim  # not needed for mse

            self.ms_ssim = ms_ssim

    def __call__(self, output: dict, x: Tensor) -> Terms:
        """output: what a codec's `forward` returns for x (B, 3, H, W) in [0, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            x, x_hat = x.float(), output["x_hat"].float()
            bpp = rate(output, x.shape[0] * x.shape[2] * x.shape[3])
            mse = torch.mean((x_hat - x) ** 2)
            distortion = 255**2 * mse
            if self.ms_ssim is not None:
                distortion = 1 - self.ms_ssim(x_hat, x, data_range=1.0)
            return Terms(self.lmbda * distortion + bpp, bpp.detach(), mse.detach())


def rate(output: dict, pixels: int) -> Tensor:
    """Bits per pixel, a scalar, of the likelihoods that a codec gives for so many pixels."""
    bits = [-torch.log2(p.float()).sum() for p in output["likelihoods"].values()]
    return torch.stack(bits).sum() / pixels


def rate_alone(output: dict, pixels: int) -> Terms:
    """The loss where the distortion is a constant: the rate, with no mean square error (NaN)."""
    with torch.autocast(output["likelihoods"]["y"].device.type, enabled=False):
        bpp = rate(output, pixels)
    return Terms(bpp, bpp.detach(), torch.full_like(bpp, torch.nan))
