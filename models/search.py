"""The encoder searches: latents that serve one image better than what g_a makes of it.

g_a is trained for the mean of all images. Here the latents themselves descend the image's own
lambda * 255**2 * MSE + bpp, from g_a's on; the better of the two files is taken, an ordinary one.

Y. Yang, R. Bamler, S. Mandt: "Improving Inference for Neural Image Compression", NeurIPS 2020
(arXiv 2006.04240): stochastic Gumbel annealing. Y. Perugachi-Diaz, A. Gansekoele, S. Bhulai:
"Robustly overfitting latents for flexible neural image compression", 2024 (arXiv 2401.17789):
SGA+, whose linear probabilities are used.

Implementation differences: temperature and rate fall over however many steps there are (theirs,
2,000 steps: Adam at 0.005, constant; temperature 0.5 to 0.27), from higher ones; Adam is damped.
On a crop of a training photograph (Hyperprior, lambda 0.013, 50 steps) the loss falls from 1.026
to 0.909; with the atanh probabilities of SGA to 0.943, with straight-through steps to 0.955.

A latent of Joint and Checkerboard moves the means of those after it, so that these two descend at
half the rate. Over eight crops of training photographs, 50 steps take Joint's loss at lambda 0.0067
down by 5.1 %; at the whole rate it rose by 0.6 %.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.base import Codec, pad
from models.coding.container import MAX_SIDE, padded
from models.errors import UsageError
from models.images import check_images
from models.layers import AtGain
from models.layers.bf16 import computes_in_bf16, with_pixel_deconv
from models.layers.defaults import torch_defaults

WINDOW, MARGIN = 768, 64  # pixels, multiples of what a position of z covers
HOT, COLD = 0.7, 0.2  # temperature at the first and the last step
LARGEST_RATE = 0.1  # of Adam, in quantisation steps; falls with more steps
WITH_CONTEXT = 0.5  # of that rate for Joint and Checkerboard
DAMPING = 2.0  # Adam's epsilon, in bits per quantisation step


@dataclass(frozen=True)
class Coded:
    """A complete file of an image, and the mean square error of the decoded 8-bit image."""

    data: bytes
    pixels: int
    mse: float = math.nan  # in squares of the 255 levels; unless it was decoded

    @property
    def bpp(self) -> float:
        """Bits per pixel."""
        return 8 * len(self.data) / self.pixels

    @property
    def psnr(self) -> float:
        """Of the decoded image, in dB; 100 at most."""
        return 10 * math.log10(255**2 / max(self.mse, 255**2 / 1e10))


def compress(model: Codec, x: Tensor, effort: int, gain: float = 1.0) -> bytes:
    """One image (1, 3, H, W) to a file: the better of `Codec.compress` and `effort` search steps.

    On a CPU, the same machine and number of threads give the same file. UsageError as `search`;
    ValueError as `Codec.compress`.
    """
    latents = analysis(model, x)
    searched = search(model, x, latents, effort, gain)
    candidates = code(model, x, latents, gain), code(model, x, searched, gain)
    lmbda = lambda_at(model, gain)
    return min(candidates, key=lambda coded: lmbda * coded.mse + coded.bpp).data


def lambda_at(model: Codec, gain: float) -> float:
    """The lambda that a gain stands for. UsageError if the model was not trained for the MSE."""
    point = model.point
    if point is None or point.metric != "mse" or not point.lmbda > 0:
        raise UsageError("A search needs a model trained for the mean square error: drop --effort.")
    return point.lmbda * gain**2


def analysis(model: Codec, x: Tensor) -> dict[str, Tensor]:
    """g_a's latents of an image x (1, 3, H, W). ValueError for what is none."""
    check_images(x)
    if len(x) != 1:
        raise ValueError(f"A search takes one image at a time, not {len(x)}.")
    with torch_defaults():
        return model.analysis(pad(x, model.downsampling))


@torch.no_grad()
def code(model: Codec, x: Tensor, latents: dict[str, Tensor], gain: float = 1.0) -> Coded:
    """Code latents (1, C, h, w) and decode the file, to see how it serves x (1, 3, H, W)."""
    height, width = x.shape[-2:]
    (data,) = model.files(latents, height, width, gain)
    levels = model.decompress([data], max_pixels=MAX_SIDE**2).mul_(255).round_()
    error = levels.sub_(x, alpha=255)
    return Coded(data, height * width, error.square_().mean().item())


class Relaxed:
    """Rounding v to its floor or ceiling at random, relaxed: a `Mode` of `Quantised`.

    floor(v) + sigmoid((logit(f) / T + l) / T), f the fraction of v and T the temperature, is near
    the ceiling with probability f**(1/T) / (f**(1/T) + (1 - f)**(1/T)). l is logistic noise, one
    draw for each shape: all roundings of a latent in one step agree.
    """

    def __init__(self, temperature: float, generator: torch.Generator):
        self.temperature, self.generator = temperature, generator
        self.noise: dict[torch.Size, Tensor] = {}

    def __call__(self, v: Tensor) -> Tensor:
        """v of any shape to one like it."""
        if v.shape not in self.noise:
            uniform = torch.rand(v.shape, generator=self.generator, device=v.device)
            self.noise[v.shape] = torch.logit(uniform, eps=1e-6)
        floor = v.detach().floor()
        fraction = (v - floor).clamp(1e-4, 1 - 1e-4)  # at 0 and 1 logits are infinite
        logit = torch.logit(fraction) / self.temperature
        return floor + torch.sigmoid((logit + self.noise[v.shape]) / self.temperature)


@torch_defaults()
def search(
    model: Codec,
    x: Tensor,
    latents: dict[str, Tensor],
    steps: int,
    gain: float = 1.0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Latents (1, C, h, w) of an image x (1, 3, H, W) after descent from those given, which stay.

    Windows of `WINDOW` pixels a side follow each other in raster order, all steps each, which
    bounds the memory. A window is seen with `MARGIN` pixels around, as far as its latents reach,
    whose own latents are fixed. Pixels of padding count in the rate only. The model's `progress`
    goes through all steps. UsageError for less than a step and for a model that was not trained for
    the MSE.
    """
    lmbda = lambda_at(model, gain)
    if steps < 1:
        raise UsageError(f"A search takes 1 step or more, not {steps}.")
    generator = torch.Generator(x.device).manual_seed(seed)
    height, width = x.shape[2:]
    tall = padded(height, width, model.downsampling)[0]
    strides = {name: tall // v.shape[2] for name, v in latents.items()}
    # y is in steps of the quantiser here, as it is coded.
    searched = {name: v * gain if name == "y" else v.clone() for name, v in latents.items()}
    corners = list(itertools.product(*(range(0, side, WINDOW) for side in (height, width))))
    model = _constant(model)
    progress = iter(model.progress(range(len(corners) * steps)))
    next(progress)  # a step is done when the next is asked for
    for corner in corners:
        views = {name: _view(v, corner, MARGIN, strides[name]) for name, v in searched.items()}
        part = {name: v.clone() for name, v in views.items()}
        free = {}
        for name, v in searched.items():
            mask = torch.zeros_like(v[:, :1])
            _view(mask, corner, 0, strides[name]).fill_(1)
            free[name] = _view(mask, corner, MARGIN, strides[name])
        target = _view(x, corner, MARGIN, 1)
        for _ in _descent(model, target, part, free, steps, lmbda, gain, generator):
            next(progress, None)
        if all(v.isfinite().all() for v in part.values()):  # else those given stay
            for name, v in views.items():
                v.copy_(part[name].detach())
    return {name: v / gain if name == "y" else v for name, v in searched.items()}


def _constant(model: Codec) -> Codec:
    """The model with the same weights, in the same memory, as constants that take no gradient."""
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, {**shared, id(model._frozen): model._frozen})


def _view(v: Tensor, corner: tuple[int, ...], margin: int, stride: int) -> Tensor:
    """The window of v (1, C, h, w), whose positions are of so many pixels, with a margin."""
    rows, columns = (
        slice(max(start - margin, 0) // stride, (start + WINDOW + margin) // stride)
        for start in corner
    )
    return v[:, :, rows, columns]


@torch.enable_grad()
def _descent(
    model: Codec,
    target: Tensor,
    latents: dict[str, Tensor],
    free: dict[str, Tensor],
    steps: int,
    lmbda: float,
    gain: float,
    generator: torch.Generator,
) -> Iterator[None]:
    """Change latents (1, C, h, w) where free (1, 1, h, w) is 1; yields after each step.

    target: the pixels (1, 3, H, W) that they stand for, without padding.
    """
    device, (height, width) = target.device, target.shape[2:]
    for v in latents.values():
        v.requires_grad_(True)
    # Gradients are in bits: the damping shortens Adam's strides where they are worth few bits.
    rate = min(LARGEST_RATE, 0.7 / math.sqrt(steps))
    if hasattr(model, "context_prediction"):
        rate *= WITH_CONTEXT
    adam = torch.optim.Adam(latents.values(), eps=DAMPING)
    g_s = with_pixel_deconv(model.g_s)  # a tenth of a step less
    for step in range(steps):
        rounding = Relaxed(HOT * (COLD / HOT) ** (step / steps), generator)
        coded = {**latents, "y": latents["y"] / gain}
        y_hat, likelihoods = model.likelihoods(coded, AtGain(rounding, gain))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_in_bf16(device)):
            x_hat = g_s(y_hat)
        error = x_hat[:, :, :height, :width].float().clamp(0, 1) - target
        mse = error.square().mean()
        bits = [-likelihood.log2().sum() for likelihood in likelihoods.values()]
        bpp = torch.stack(bits).sum() / (height * width)
        loss = lmbda * 255**2 * mse + bpp
        gradients = torch.autograd.grad(loss * (height * width), list(latents.values()))
        for (name, v), gradient in zip(latents.items(), gradients, strict=True):
            v.grad = gradient * free[name]
        adam.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        adam.step()
        yield
