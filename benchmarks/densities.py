"""What the non-parametric density of a channel can express, beside a piecewise-linear one.

Both are fitted to five targets of known shape, with 43 numbers each. Writes univariate_density.csv,
the Kullback-Leibler divergence, in bits per symbol, that is left after 1,200 steps, and draws the
fits in univariate_density_targets.png, the study's in Image4md/.

The chain's divergence is not convex in its parameters: it starts from eight random points, and the
best end counts. "As good" is a divergence at most 0.01 bit above the other's: with 192 channels,
0.75 symbols a pixel, that is 0.0075 bpp, about 1 % of a file at lambda 0.013.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from evaluation.plots import drawing
from models.entropy.density import NonParametricDensity

CSV = "univariate_density.csv"
STEPS, BATCH, STARTS, KNOTS = 1200, 128, 8, 41
AS_GOOD = 0.01  # bits per symbol above the other density's
TARGET = {"color": "#CC3311", "linestyle": ":", "linewidth": 2}


class Mixture:
    """A mixture of SciPy distributions, with the methods that the targets need."""

    def __init__(self, weights: Iterable[float], parts: Iterable[Any]):
        self.parts = list(zip(weights, parts, strict=True))

    def pdf(self, x: np.ndarray) -> np.ndarray:
        return sum(weight * part.pdf(x) for weight, part in self.parts)

    def ppf(self, u: np.ndarray) -> np.ndarray:
        """The quantiles must lie within [-30, 30]."""
        x = np.linspace(-30, 30, 300001)
        return np.interp(u, sum(weight * part.cdf(x) for weight, part in self.parts), x)


TARGETS = {
    "four modes": Mixture(
        [0.2, 0.3, 0.3, 0.2],
        [stats.norm(-6, 0.8), stats.norm(-2, 0.6), stats.norm(2, 0.6), stats.norm(6, 1)],
    ),
    "skewed (gamma, shape 2)": stats.gamma(2, scale=1.5),
    "peaked (Laplace)": stats.laplace(0, 1),
    "heavy tails (Student, 2 d.o.f.)": stats.t(2),
    "uniform": stats.uniform(-4, 8),
}


def quantile_points(targets: Iterable[Any], n: int = 4096) -> tuple[Tensor, Tensor]:
    """Evenly spaced quantiles of targets, and the log densities there in nats: (targets, n)."""
    targets = list(targets)
    points = np.stack([target.ppf((np.arange(n) + 0.5) / n) for target in targets])
    logs = np.stack([np.log(t.pdf(row)) for t, row in zip(targets, points, strict=True)])
    return torch.tensor(points).float(), torch.tensor(logs).float()


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
    model: nn.Module, log_p: Callable[[Tensor], Tensor], points: Tensor, log_target: Tensor,
    *, steps: int, lr: float, batch: int = 512,
) -> Iterator[int]:  # fmt: skip
    """Minimise KL(target || p) by Adam with a cosine decay; yields how many steps are done.

    points (C, n): values at evenly spaced probabilities of each channel's target, so that
    the mean over them is the expectation under the target; log_target (C, n): its log
    density there, in nats. `log_p` maps values (C, m) to the model's log density, in nats.
    Each step sees `batch` of the points, again evenly spaced, with a random start.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    stride = max(1, points.shape[1] // batch)
    yield 0
    for step in range(steps):
        start = int(torch.randint(stride, ()))
        part = slice(start, None, stride)
        optimizer.zero_grad()
        (log_target[:, part] - log_p(points[:, part])).mean(1).sum().backward()
        optimizer.step()
        schedule.step()
        yield step + 1


@torch.no_grad()
def divergence(log_p: Callable[[Tensor], Tensor], points: Tensor, log_target: Tensor) -> Tensor:
    """KL(target || p) in bits, (C,), from points and log_target as in `fit`."""
    return (log_target - log_p(points)).mean(1) / math.log(2)


class PiecewiseLinearDensity(nn.Module):
    """One density per channel: heights at equidistant knots, straight lines in between.

    low, high (C,): the support, outside of which the density is zero; `knots` >= 2 heights
    are learned, and softplus keeps them positive. With the support's two ends that makes
    knots + 2 numbers per channel. Source: the density model of Balle et al. 2017, section 3
    ("piecewise linear density functions"), here normalised instead of penalised.
    """

    def __init__(self, low: Tensor, high: Tensor, knots: int):
        super().__init__()
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


def best_fits(
    model: nn.Module, log_p: Callable[[Tensor], Tensor], starts: int, lr: float, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Fit `TARGETS`, `starts` times each: what is lost, in bits, (starts, targets), and the best
    fits' densities at x (targets, n)."""
    points, log_target = (part.repeat(starts, 1) for part in quantile_points(TARGETS.values()))
    for _ in fit(model, log_p, points, log_target, steps=STEPS, lr=lr, batch=BATCH):
        pass
    lost = divergence(log_p, points, log_target).view(starts, -1)
    best = lost.argmin(0) * len(TARGETS) + torch.arange(len(TARGETS))
    with torch.no_grad():
        return lost.clamp(min=0), log_p(x.repeat(starts, 1))[best].exp()


def draw(path: Path, rows: list[dict[str, str]], x: Tensor, fits: dict[str, Tensor]) -> None:
    """A panel for each target with both fits at x, and their divergences in its title."""
    with drawing(path, (10, 5.6)) as figure:
        panels = figure.subplots(2, 3).flatten()
        for k, (axes, row, v) in enumerate(zip(panels, rows, x, strict=False)):
            for (label, p), color in zip(fits.items(), ("black", "#0072B2"), strict=True):
                axes.plot(v, p[k], color=color, linewidth=1.4, label=label)
            axes.plot(v, TARGETS[row["target"]].pdf(v.numpy()), label="target", **TARGET)
            lost = f"{float(row['chain']):.3f} and {float(row['piecewise_linear']):.3f} bit lost"
            axes.set(title=f"{row['target']}\n{lost}", xlabel="x", ylabel="p(x)", ylim=(0, None))
        panels[-1].axis("off")
        panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center", fontsize=11)


def run(options: argparse.Namespace) -> list[dict[str, str]]:
    """Fit both densities, seeded, and draw: a target's divergences, in bits, and a verdict."""
    points, _ = quantile_points(TARGETS.values())
    torch.manual_seed(0)
    chain = NonParametricDensity(channels=STARTS * len(TARGETS), filters=(3, 3, 3))
    linear = PiecewiseLinearDensity(points[:, 0], points[:, -1], KNOTS)
    spans = (-9.5, 9.5), (-1, 13), (-6, 6), (-12, 12), (-6, 6)  # of the targets, as drawn
    x = torch.stack([torch.linspace(*span, 1201) for span in spans])
    chains, curved = best_fits(chain, partial(log_density, chain), STARTS, 0.15, x)
    (lines,), straight = best_fits(linear, linear.log_density, 1, 0.3, x)
    rows = [
        {
            "target": target, "chain": f"{least:.4f}", "chain_worst_start": f"{most:.4f}",
            "piecewise_linear": f"{line:.4f}",
            "chain_as_good": "yes" if least - line <= AS_GOOD else "no",
        }
        for target, least, most, line in zip(
            TARGETS, chains.amin(0), chains.amax(0), lines, strict=True
        )
    ]  # fmt: skip
    fits = {"K = 4 chain": curved, "piecewise linear": straight}
    draw(options.figures / "univariate_density_targets.png", rows, x, fits)
    return rows
