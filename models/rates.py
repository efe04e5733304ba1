"""Any rate: the checkpoint and the gain for a lambda, a size or a quality.

A gain g moves a checkpoint of lambda to lambda * g**2 (`models.coding.gain`): what it loses there
to a model trained for it grows with the distance, and faster upwards than downwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from models import search
from models.base import Codec
from models.coding.gain import LEAST, MOST, UNIT, Gain
from models.errors import UsageError
from models.search import Coded, Watch

SMALLEST, LARGEST = 1 / 4, 2.0  # gains for a lambda; beyond, they lose more than a tenth
UPWARDS = 1.1  # the gain from which the checkpoint above, at a gain below 1, does better
TRIES, SEARCHES = 8, 3  # of `fit`: files coded for one checkpoint, and searches
# Of photographs, roughly: bits per pixel and PSNR of lambda, for the first guess.
BPP, PSNR, DECIBELS = 6.6, 44.0, 2.5  # 6.6 * lambda**0.6 and 44 + 2.5 * ln(lambda)
ELASTICITY = 0.6


def at_lambda(trained: Sequence[float], lmbda: float) -> tuple[float, float]:
    """The trained lambda to use for another one, and its gain; UsageError if that is out of reach.

    The lowest that needs no gain above `UPWARDS`, or else the highest.
    """
    if not lmbda > 0:
        raise UsageError(f"A lambda is a number above 0, not {lmbda:g}.")
    own = min((v for v in trained if lmbda <= v * UPWARDS**2), default=max(trained))
    gain = math.sqrt(lmbda / own)
    if not SMALLEST <= gain <= LARGEST:
        low, high = reach(trained)
        raise UsageError(f"Lambda {lmbda:g} is out of reach: it goes from {low:.2g} to {high:.2g}.")
    return own, gain


def reach(trained: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest lambda that trained ones may stand for."""
    return min(trained) * SMALLEST**2, max(trained) * LARGEST**2


@dataclass(frozen=True)
class Aim:
    """What a file is to be: of at most `most` bytes, or of at least `psnr` dB."""

    most: int | None = None
    psnr: float | None = None

    def __post_init__(self) -> None:
        if (self.most is None) == (self.psnr is None):
            raise UsageError("Aim at a size or at a quality: one of the two.")
        if self.most is not None and self.most < 1:
            raise UsageError(f"A file has 1 byte or more, not {self.most}.")
        if self.psnr is not None and not 0 < self.psnr < 100:
            raise UsageError(f"A PSNR is a number of dB from 0 to 100, not {self.psnr:g}.")

    @property
    def slope(self) -> float:
        """Of `excess` by the logarithm of the gain, roughly."""
        return 2 * (ELASTICITY if self.most else DECIBELS)

    @property
    def near(self) -> float:
        """The excess that is as good as none: 0.1 %, or 0.01 dB."""
        return 0.001 if self.most else 0.01

    def excess(self, coded: Coded) -> float:
        """How far a file is above the aim: in the logarithm of its size, or in dB."""
        if self.most:
            return math.log(len(coded.data) / self.most)
        return coded.psnr - (self.psnr or 0.0)

    def met(self, excess: float) -> bool:
        """Whether a file is of that size or quality."""
        return excess <= 0 if self.most else excess >= 0

    def guess(self, pixels: int) -> float:
        """The lambda that a photograph of so many pixels needs."""
        if self.most:
            return (8 * self.most / pixels / BPP) ** (1 / ELASTICITY)
        return math.exp(((self.psnr or 0.0) - PSNR) / DECIBELS)


def compress(
    load: Callable[[float], Codec],
    trained: Sequence[float],
    x: Tensor,
    lmbda: float,
    effort: int = 0,
    *,
    watch: Watch = lambda _: None,
) -> tuple[Codec, bytes]:
    """The file of an image (1, 3, H, W) at a lambda, trained or not, and its codec; as `fit`."""
    own, gain = (lmbda, 1.0) if lmbda in trained else at_lambda(trained, lmbda)
    model = load(own)
    if effort:
        return model, search.compress(model, x, effort, gain, watch=watch)
    return model, model.compress(x, gain)[0]


def fit(
    load: Callable[[float], Codec],
    trained: Sequence[float],
    x: Tensor,
    aim: Aim,
    effort: int = 0,
    *,
    seed: int = 0,
    watch: Watch = lambda _: None,
) -> tuple[Codec, bytes]:
    """The file of an image (1, 3, H, W) that meets an aim the most closely, and its codec: the
    largest that is not too large, or the smallest that is good enough.

    load: a codec by its lambda, of those `trained`; two at most are loaded, and g_a runs once in
    each. With effort, up to `SEARCHES` searches start where the aim is met, and the best file is
    taken. UsageError that says how near it came if no gain meets the aim; ValueError as
    `Codec.compress`.
    """
    search.check_effort(effort)
    pixels = x.shape[-2] * x.shape[-1]
    lmbda = min(max(aim.guess(pixels), min(trained)), max(trained))
    own, _ = at_lambda(trained, lmbda)
    model = load(own)
    latents = search.analysis(model, x)

    height, width = x.shape[-2:]

    def plain(gain: float) -> Coded:
        if aim.most:  # what the image is like is no matter
            return Coded(model.files(latents, height, width, gain)[0], pixels)
        return search.code(model, x, latents, gain)

    def searched(gain: float) -> Coded:
        lmbda = search.lambda_of(model) * gain**2
        better = search.search(model, x, latents, effort, lmbda, seed, watch, gain)
        return search.code(model, x, better, gain)

    first = plain(1.0)
    lmbda = own * math.exp(-2 * aim.excess(first) / aim.slope)
    low, high = reach(trained)
    better, gain = at_lambda(trained, min(max(lmbda, low), high))
    tried = {UNIT: first}
    if better != own:
        model, tried = load(better), {}
        latents = search.analysis(model, x)
    gain = approach(plain, aim, gain, tried, TRIES)
    files = [tried[Gain(gain).units]]
    if effort:
        files = [search.code(model, x, latents, gain)]
        tried = {}
        approach(searched, aim, gain, tried, SEARCHES)
        files += tried.values()
    met = [coded for coded in files if aim.met(aim.excess(coded))]
    if met:
        return model, min(met, key=lambda coded: coded.mse if aim.most else len(coded.data)).data
    nearest = min(files, key=lambda coded: abs(aim.excess(coded)))
    if aim.most:
        raise UsageError(
            f"The smallest file has {len(nearest.data)} bytes ({nearest.bpp:.4f} bpp), more than "
            f"the {aim.most} asked for: allow more."
        )
    raise UsageError(
        f"The best file has {nearest.psnr:.2f} dB, less than the {aim.psnr:g} asked for: ask for "
        "less."
    )


def approach(
    code: Callable[[float], Coded], aim: Aim, gain: float, tried: dict[int, Coded], tries: int
) -> float:
    """Code at gains, from the first guess on, until one meets the aim closely; all files go to
    `tried`, by the gain in units of 1/4096. Returns the gain that met it the most closely, or
    else came nearest.

    The logarithm of the size and the PSNR are nearly straight lines of the logarithm of the gain.
    """
    goal = -aim.near / 2 if aim.most else aim.near / 2
    for _ in range(tries):
        units = Gain(min(max(gain, LEAST), MOST)).units
        if units in tried:  # as near as a gain comes
            break
        tried[units] = code(units / UNIT)
        excess = {u: aim.excess(coded) for u, coded in tried.items()}
        if aim.met(excess[units]) and abs(excess[units]) <= aim.near:
            break
        below = max((u for u in tried if excess[u] <= goal), default=None)
        above = min((u for u in tried if excess[u] > goal), default=None)
        if below and above and below < above:
            part = (goal - excess[below]) / (excess[above] - excess[below])
            gain = below / UNIT * (above / below) ** min(max(part, 0.1), 0.9)
            continue
        slope, others = aim.slope, [u for u in tried if u != units]
        if others:
            other = min(others, key=lambda u: abs(excess[u]))
            steepness = (excess[units] - excess[other]) / math.log(units / other)
            slope = min(max(steepness, slope / 4), slope * 4)
        gain = units / UNIT * math.exp((goal - excess[units]) / slope)
    met = [u for u in tried if aim.met(aim.excess(tried[u]))]
    return min(met or tried, key=lambda u: abs(aim.excess(tried[u]))) / UNIT
