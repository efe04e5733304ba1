"""Gaussian likelihoods of unit intervals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.entropy.density import LIKELIHOOD_BOUND
from models.layers import lower_bound

SCALE_BOUND = 0.11
SCALE_MAX = 256.0
SCALE_LEVELS = 64


def standard_cumulative(v: Tensor) -> Tensor:
    """Phi(v), by erfc for accuracy in the lower tail; any shape."""
    return 0.5 * torch.erfc(v * -(2**-0.5))


def gaussian_likelihood(
    v: Tensor, scales: Tensor, means: Tensor | float = 0.0, gain: float = 1.0
) -> Tensor:
    """Mass of N(means, scales**2) convolved with U(-1/2, 1/2) at v, at least 1e-9; all of them
    times `gain`, at which v is coded.

    v, scales, means: (B, M, H, W) (or broadcastable). Scales below 0.11 count as 0.11.
    Source: Balle et al. 2018, equation 9; Minnen et al. 2018, equation 4.
    """
    with torch.autocast(v.device.type, enabled=False):
        distance = (v.float() - means).abs() * gain  # the lower tail, where Phi is accurate
        scales = lower_bound(scales.float() * gain, SCALE_BOUND)
        upper = standard_cumulative((0.5 - distance) / scales)
        lower = standard_cumulative((-0.5 - distance) / scales)
        return lower_bound(upper - lower, LIKELIHOOD_BOUND)


def scale_levels() -> Tensor:
    """The 64 log-spaced scales from 0.11 to 256 that have a table; (64,) float64."""
    ends = math.log(SCALE_BOUND), math.log(SCALE_MAX)
    return torch.linspace(*ends, SCALE_LEVELS, dtype=torch.float64).exp()
