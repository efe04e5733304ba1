"""Fitting of one-dimensional densities, for the study of what the entropy models can express."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.entropy.density import NonParametricDensity


def log_density(density: NonParametricDensity, v: Tensor) -> Tensor:
    """log p(v) in nats with p = dc/dv, the density without a unit interval: (C, n) -> (C, n).

    The chain rule, p = f'_K ... f'_1, carried along with the cumulative c = f_K o ... o f_1.
    Written with the logit l of c, log p = log sigmoid(l) + log sigmoid(-l) + log dl/dv stays
    finite where c itself rounds to 0 or 1. Source: Balle et al. 2018, appendix 6.1.
    """
    v = v[:, None, :]  # (C, 1, n)
    slope = torch.ones_like(v)
    for k, (matrix, bias) in enumerate(zip(density.matrices, density.biases, strict=True)):
        weight = F.softplus(matrix)
        v, slope = weight @ v + bias, weight @ slope
        if k < len(density.factors):
            factor, bend = torch.tanh(density.factors[k]), torch.tanh(v)
            v, slope = v + factor * bend, slope * (1 + factor * (1 - bend.square()))
    return (F.logsigmoid(v) + F.logsigmoid(-v) + slope.log())[:, 0, :]


def fit(
    model: nn.Module,
    log_p: Callable[[Tensor], Tensor],
    points: Tensor,
    log_target: Tensor,
    *,
    steps: int,
    lr: float,
    batch: int = 512,
    visit: Callable[[int, Tensor], None] = lambda step, divergence: None,
    visits: Collection[int] = (),
) -> Tensor:
    """Minimise KL(target || p) by Adam with a cosine decay; returns the divergence, (C,) bits.

    points (C, n): values at evenly spaced probabilities of each channel's target, so that
    the mean over them is the expectation under the target; log_target (C, n): its log
    density there, in nats. `log_p` maps values (C, m) to the model's log density, in nats.
    Each step sees `batch` of the points, again evenly spaced, with a random start.
    `visit(k, divergence)` is called after k steps for each k in `visits`.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    stride = max(1, points.shape[1] // batch)
    for step in range(steps):
        if step in visits:
            visit(step, divergence(log_p, points, log_target))
        start = int(torch.randint(stride, ()))
        part = slice(start, None, stride)
        optimizer.zero_grad()
        (log_target[:, part] - log_p(points[:, part])).mean(1).sum().backward()
        optimizer.step()
        schedule.step()
    final = divergence(log_p, points, log_target)
    if steps in visits:
        visit(steps, final)
    return final


@torch.no_grad()
def divergence(log_p: Callable[[Tensor], Tensor], points: Tensor, log_target: Tensor) -> Tensor:
    """KL(target || p) in bits, (C,), from points and log_target as in `fit`."""
    return (log_target - log_p(points)).mean(1) / math.log(2)
