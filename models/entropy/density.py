"""The univariate non-parametric density of the factorized prior, one per channel."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Mode, Quantised, lower_bound

LIKELIHOOD_BOUND = 1e-9
TAIL_MASS = 1e-9
FILTERS = (3, 3, 3, 3)


class NonParametricDensity(nn.Module):
    """A learned cumulative c: R -> (0, 1) per channel, and p(v) = c(v + 1/2) - c(v - 1/2).

    The logit of c is a chain of layers x -> x + tanh(a) * tanh(x) after x -> softplus(H) x
    + b. Softplus keeps every H positive and tanh keeps every slope 1 + tanh(a)(1 - tanh**2)
    positive, so the chain is monotone and c is a cumulative whatever the parameters are.
    Source: Balle et al. 2018, appendix 6.1.

    Parameters: matrices, biases and factors for each layer, `quantiles` (C, 1, 3): the
    tail_mass/2, 1/2 and 1 - tail_mass/2 quantiles. The reference implementations have
    filters (3, 3, 3, 3), that is five layers of matrices; names and shapes are
    CompressAI's, so that weights are interchangeable.
    """

    def __init__(self, channels: int, filters: tuple[int, ...] = FILTERS, init_scale: float = 10.0):
        super().__init__()
        self.channels = channels
        sizes = (1, *filters, 1)
        scale = init_scale ** (1 / (len(filters) + 1))
        self.matrices, self.biases, self.factors = (nn.ParameterList() for _ in range(3))
        for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
            value = math.log(math.expm1(1 / scale / fan_out))
            self.matrices.append(nn.Parameter(torch.full((channels, fan_out, fan_in), value)))
            self.biases.append(nn.Parameter(torch.rand(channels, fan_out, 1) - 0.5))
        for fan_out in filters:
            self.factors.append(nn.Parameter(torch.zeros(channels, fan_out, 1)))
        # Found by bisection (`solve_quantiles`), never by descent: no gradient.
        start = torch.tensor([-init_scale, 0.0, init_scale])
        self.quantiles = nn.Parameter(start.repeat(channels, 1, 1), requires_grad=False)

    def logits_cumulative(self, v: Tensor) -> Tensor:
        """The logit of c at v: (C, 1, n) -> (C, 1, n)."""
        for k, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            v = F.softplus(matrix) @ v + bias
            if k < len(self.factors):
                v = v + torch.tanh(self.factors[k]) * torch.tanh(v)
        return v

    def likelihood(self, v: Tensor, gain: float = 1.0) -> Tensor:
        """Probability mass of an interval of 1 / gain around v: (B, C, H, W) -> same, >= 1e-9."""
        with torch.autocast(v.device.type, enabled=False):
            rows = v.float().transpose(0, 1)  # (C, B, H, W)
            flat = rows.reshape(self.channels, 1, -1)
            lower = self.logits_cumulative(flat - 0.5 / gain)
            upper = self.logits_cumulative(flat + 0.5 / gain)
            mass = torch.sigmoid(upper) - torch.sigmoid(lower)
            mass = lower_bound(mass, LIKELIHOOD_BOUND)
            return mass.view(rows.shape).transpose(0, 1)

    def medians(self) -> Tensor:
        """(1, C, 1, 1): the offset around which values are rounded."""
        return self.quantiles[:, 0, 1].detach().view(1, -1, 1, 1)

    def forward(self, v: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
        """v (B, C, H, W) -> (v_hat for the next networks, likelihoods); modes of `Quantised`."""
        quantised, medians = Quantised(v, mode), self.medians()
        measured = quantised.measured(medians)
        return quantised.hat(medians), self.likelihood(measured, quantised.gain)

    @torch.no_grad()
    def solve_quantile(self, probability: float) -> Tensor:
        """(C,) float64: the v with c(v) = probability, by bisection in float64."""
        target = math.log(probability) - math.log1p(-probability)
        logits = copy.deepcopy(self).double().logits_cumulative
        low = torch.full_like(self.quantiles[..., :1], -(2.0**40), dtype=torch.float64)
        high = -low
        for _ in range(100):  # to the last bit or so
            middle = (low + high) / 2
            below = logits(middle) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high.flatten()

    @torch.no_grad()
    def solve_quantiles(self) -> None:
        """Set `quantiles` from the density, in place of descending an auxiliary loss."""
        for k, probability in enumerate((TAIL_MASS / 2, 0.5, 1 - TAIL_MASS / 2)):
            self.quantiles[:, 0, k] = self.solve_quantile(probability).to(self.quantiles.dtype)

    @torch.no_grad()
    def masses(self, v: Tensor) -> Tensor:
        """Exact-as-possible interval masses in float64: (C, n) -> (C, n), no bound.

        Differences of two sigmoids near 1 cancel; by symmetry they are taken near 0.
        """
        logits = copy.deepcopy(self).double().logits_cumulative
        v = v.double()[:, None, :]
        lower, upper = logits(v - 0.5), logits(v + 0.5)
        sign = torch.where(lower + upper > 0, -1.0, 1.0)
        return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()[:, 0, :]
