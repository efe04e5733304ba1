"""Random weights with the statistics of a trained codec, for benchmarks without a checkpoint.

Times hardly depend on what the weights mean, but they do depend on the statistics of the
latents: how many symbols are zero, how many tables are in use, how often a symbol escapes.
Random weights give latents near zero with one scale for all. Here the channels of y get
standard deviations from `LARGEST` down to `SMALLEST` in a geometric series (in a trained codec,
too, few channels carry most of the bits), the predicted scales vary around them over
the image, and the densities get the spread of their latents. A photograph then costs about
half a bit per pixel, as at the study's middle operating points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import models
from models.base import Codec

LARGEST, SMALLEST = 4.0, 0.02  # standard deviations of the channels of y
Z_DEVIATION = 1.5
SCALE_VARIATION = 0.15  # of predicted scales over the image, relative
MEAN_VARIATION = 0.3  # of predicted means, in standard deviations


@torch.no_grad()
def calibrated(name: str, N: int, M: int, x: Tensor, seed: int = 0) -> Codec:
    """A codec with seeded random weights as the module's docstring describes, frozen.

    x (1, 3, H, W), H and W multiples of 64, one of them at least 128: the photograph that
    statistics are taken on.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = models.build(name, N, M).eval()
    steps = torch.linspace(0, 1, M).sqrt()  # few large channels
    deviations = LARGEST * (SMALLEST / LARGEST) ** steps
    y = _standardise(model.g_a[-1], model.g_a(x), deviations)
    _unit_output(model.g_s, y)
    if "z" in model.streams:
        seen = y.abs() if name == "Hyperprior" else y
        spread = torch.full((N,), Z_DEVIATION)
        z = _standardise(model.h_a[-1], model.h_a(seen), spread)
        _predict(model, z, y, deviations)
    else:
        spread = deviations
    _spread_density(model.entropy_bottleneck, spread)
    model.solve_quantiles()
    return model.freeze()


def _standardise(layer: nn.Conv2d, out: Tensor, deviations: Tensor) -> Tensor:
    """Scale and shift a layer's channels to mean 0 and `deviations`; returns its new output."""
    mean, deviation = out.mean((0, 2, 3)), out.std((0, 2, 3), correction=0)
    deviation = deviation.clamp(min=1e-6)
    gain = deviations / deviation
    layer.weight.mul_(gain[:, None, None, None])
    layer.bias.sub_(mean).mul_(gain)
    return (out - mean[:, None, None]) * gain[:, None, None]


def _unit_output(g_s: nn.Sequential, y: Tensor) -> None:
    """Keep the decoded image in [0, 1]: inverse GDN would let random weights explode."""
    x = torch.round(y)
    for layer in g_s:
        out = layer(x)
        if isinstance(layer, nn.ConvTranspose2d):
            gain = 0.2 / out.std().clamp(min=1e-6)
            layer.weight.mul_(gain)
            layer.bias.mul_(gain)
            out = out * gain
        x = out
    g_s[-1].bias.fill_(0.5)


def _predict(model: Codec, z: Tensor, y: Tensor, deviations: Tensor) -> None:
    """Make scales vary around `deviations`, and means (where there are any) around 0."""
    psi = model.h_s[:-1](torch.round(z)) if len(model.h_s) == 6 else model.h_s(torch.round(z))
    if not hasattr(model, "entropy_parameters"):
        _standardise(model.h_s[-2], psi, deviations * SCALE_VARIATION)
        model.h_s[-2].bias.add_(deviations)
        return
    features = torch.cat([psi, model.context_prediction(torch.round(y))], 1)
    wanted = torch.cat([deviations * SCALE_VARIATION, deviations * MEAN_VARIATION])
    last = model.entropy_parameters[-1]
    _standardise(last, model.entropy_parameters(features), wanted)
    last.bias[: model.M].add_(deviations)


def _spread_density(density: nn.Module, deviations: Tensor) -> None:
    """Give channel c a bell of about `deviations[c]`: the density's initial form, scaled.

    At its start the cumulative is a sigmoid of v / scale**5 or so, a logistic distribution,
    whose standard deviation is pi / sqrt(3) times its scale.
    """
    scale = (deviations * math.sqrt(3) / math.pi).clamp(min=0.05)
    per_layer = scale ** (1 / len(density.matrices))
    for matrix, bias in zip(density.matrices, density.biases, strict=True):
        matrix.copy_(
            torch.log(torch.expm1(1 / per_layer / matrix.shape[1]))[:, None, None].expand_as(matrix)
        )
        bias.zero_()
