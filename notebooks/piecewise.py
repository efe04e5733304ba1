"""A piecewise-linear density: the plain alternative to the non-parametric one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PiecewiseLinearDensity(nn.Module):
    """One density per channel: heights at equidistant knots, straight lines in between.

    low, high (C,): the support, outside of which the density is zero; `knots` >= 2 heights
    are learned, and softplus keeps them positive. With the support's two ends that makes
    knots + 2 numbers per channel. Source: the density model of Balle et al. 2017, section 3
    ("piecewise linear density functions"), here normalised instead of penalised.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor, knots: int):
        super().__init__()
        if knots < 2 or not (low < high).all():
            raise ValueError("A piecewise-linear density needs two knots and low < high.")
        self.register_buffer("low", low[:, None])
        self.register_buffer("high", high[:, None])
        self.heights = nn.Parameter(torch.zeros(len(low), knots))

    def log_density(self, v: Tensor) -> Tensor:
        """log p(v) in nats: (C, n) -> (C, n); minus infinity outside the support."""
        heights = F.softplus(self.heights)
        knots = heights.shape[1]
        spacing = (self.high - self.low) / (knots - 1)
        area = spacing[:, 0] * (heights.sum(1) - (heights[:, 0] + heights[:, -1]) / 2)
        place = (v - self.low) / spacing
        left = place.detach().floor().clamp(0, knots - 2)
        weight = place - left
        index = left.long()
        height = (1 - weight) * heights.gather(1, index) + weight * heights.gather(1, index + 1)
        inside = (v >= self.low) & (v <= self.high)
        return torch.where(inside, height / area[:, None], 0.0).log()
