"""Any rate: the checkpoint and the gain for a lambda, a size or a quality.

A gain g moves a checkpoint of lambda to lambda * g**2 (`models.coding.gain`), at a loss to a model
trained for it that grows with the distance.
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
from models.search import Coded

SMALLEST, LARGEST = 1 / 4, 2.0  # gains for a lambda
# Up to this gain the checkpoint below is taken, beyond it the one above: whichever had the lower
# loss on ten held-out photographs. From 0.013 further, as the next checkpoint has other transforms.
UPWARDS, FURTHER = 1.13, {0.013: 1.25}
TRIES, SEARCHES = 8, 3  # of `fit`: files coded for one checkpoint, and searches
# Of photographs, roughly: 6.6 * lambda**0.6 bits per pixel, and 44 + 2.5 * ln(lambda) dB.
BPP, ELASTICITY, PSNR, DECIBELS = 6.6, 0.6, 44.0, 2.5


def nearest(trained: Sequence[float], lmbda: float) -> float:
    """The trained lambda to use for another one: the lowest whose gain is not too large, or else
    the highest."""
    near = (v for v in trained if lmbda <= v * FURTHER.get(v, UPWARDS) ** 2)
    return min(near, default=max(trained))


def at_lambda(trained: Sequence[float], lmbda: float) -> tuple[float, float]:
    """The trained lambda to use for one, itself at a gain of 1 where it was trained, and the gain;
    UsageError beyond the reach."""
    if lmbda in trained:
        return lmbda, 1.0
    if not lmbda > 0:
        raise UsageError(f"A lambda is a number above 0, not {lmbda:g}.")
    own = nearest(trained, lmbda)
    gain = math.sqrt(lmbda / own)
    if not SMALLEST <= gain <= LARGEST:
        low, high = min(trained) * SMALLEST**2, max(trained) * LARGEST**2
        raise UsageError(f"Lambda {lmbda:g} is out of reach: it goes from {low:.2g} to {high:.2g}.")
    return own, gain


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

    @classmethod
    def of_rate(cls, bpp: float, pixels: int) -> Aim:
        """At most so many bits for each of an image's pixels, but a byte in all."""
        if not 0 < bpp < math.inf:
            raise UsageError(f"bpp is a number of bits above 0, not {bpp:g}.")
        return cls(max(math.floor(bpp * pixels / 8), 1))

    @property
    def near(self) -> float:
        """How far on the right side of the aim is as good as on it: 0.1 %, or 0.01 dB."""
        return 0.001 if self.most else 0.01

    @property
    def slope(self) -> float:
        """Of `miss` by the logarithm of the gain, roughly."""
        return 2 * (ELASTICITY if self.most else -DECIBELS)

    def miss(self, coded: Coded) -> float:
        """How far a file is off: the logarithm of its size to the size asked for, or the dB that it
        lacks. Up to 0 it meets the aim."""
        if self.most:
            return math.log(len(coded.data) / self.most)
        return (self.psnr or 0.0) - coded.psnr

    def guess(self, pixels: int) -> float:
        """The lambda that a photograph of so many pixels needs."""
        if self.most:
            return (8 * self.most / pixels / BPP) ** (1 / ELASTICITY)
        return math.exp(((self.psnr or 0.0) - PSNR) / DECIBELS)


def fit(
    load: Callable[[float], Codec],
    trained: Sequence[float],
    x: Tensor,
    goal: Aim | float,
    effort: int = 0,
) -> tuple[Codec, bytes]:
    """The file of an image (1, 3, H, W) at a lambda, or that meets an aim the most closely, and its
    codec.

    load: a codec by its lambda, of those `trained`; for an aim two at most are loaded, and g_a runs
    once in each. With effort, up to `SEARCHES` searches start where the aim is met, and the best
    file is taken. UsageError for a lambda as `at_lambda`, and that says how near it came if no gain
    meets the aim; ValueError as `Codec.compress`.
    """
    if not isinstance(goal, Aim):
        own, gain = at_lambda(trained, goal)
        model = load(own)
        if effort:
            return model, search.compress(model, x, effort, gain)
        return model, model.compress(x, gain)[0]
    aim, (height, width) = goal, x.shape[-2:]

    def plain(gain: float) -> Coded:
        if aim.most:  # what the image is like is no matter
            return Coded(model.files(latents, height, width, gain)[0], height * width)
        return search.code(model, x, latents, gain)

    def searched(gain: float) -> Coded:
        better = search.search(model, x, latents, effort, gain)
        return search.code(model, x, better, gain)

    own = nearest(trained, aim.guess(height * width))
    model = load(own)
    latents = search.analysis(model, x)
    tried = {UNIT: plain(1.0)}
    lmbda = own * math.exp(-2 * (aim.miss(tried[UNIT]) + aim.near / 2) / aim.slope)
    if (better := nearest(trained, lmbda)) != own:
        model, tried = load(better), {}
        latents = search.analysis(model, x)
    gain = approach(plain, aim, math.sqrt(lmbda / better), tried, TRIES)
    files = [tried[Gain(gain).units]]
    if effort:
        files, tried = [search.code(model, x, latents, gain)], {}
        approach(searched, aim, gain, tried, SEARCHES)
        files += tried.values()
    met = [coded for coded in files if aim.miss(coded) <= 0]
    if met:
        return model, min(met, key=lambda coded: coded.mse if aim.most else len(coded.data)).data
    closest = min(files, key=aim.miss)
    if aim.most:
        raise UsageError(
            f"The smallest file has {len(closest.data)} bytes ({closest.bpp:.4f} bpp), more than "
            f"the {aim.most} asked for: allow more."
        )
    raise UsageError(
        f"The best file has {closest.psnr:.2f} dB, less than the {aim.psnr:g} asked for: ask for "
        "less."
    )


def approach(
    code: Callable[[float], Coded], aim: Aim, gain: float, tried: dict[int, Coded], tries: int
) -> float:
    """The gain that meets an aim the most closely, or else misses it by the least, after so many
    files, which go to `tried` by the gain in units of 1/4096.

    Regula falsi: the miss is nearly a straight line of the logarithm of the gain.
    """
    for _ in range(tries):
        units = Gain(min(max(gain, LEAST), MOST)).units
        if units in tried:  # as near as a gain comes
            break
        tried[units] = code(units / UNIT)
        miss = {u: aim.miss(coded) for u, coded in tried.items()}
        if -aim.near <= miss[units] <= 0:
            break
        base, *others = sorted(tried, key=lambda u: abs(miss[u]))
        slope = aim.slope
        if others:
            steepness = (miss[base] - miss[others[0]]) / math.log(base / others[0])
            slope = sorted((slope / 4, steepness, 4 * slope))[1]
        gain = base / UNIT * math.exp(-(miss[base] + aim.near / 2) / slope)
    met = [u for u, coded in tried.items() if aim.miss(coded) <= 0]
    return min(met or tried, key=lambda u: abs(aim.miss(tried[u]))) / UNIT
