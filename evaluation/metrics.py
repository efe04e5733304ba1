"""What a reconstruction is worth: PSNR, MS-SSIM, and Bjontegaard's two differences of curves.

The metrics of images take `uint8` arrays of shape (height, width, 3), that is, the pixels a
viewer sees after rounding, and look at RGB, as the published curves of learned codecs do.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Five scales halve the image four times; what is left must hold the 11x11 window.
MS_SSIM_SMALLEST_SIDE = 161
PCHIP = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}

Image = NDArray[np.uint8]


class Delta(NamedTuple):
    """A Bjontegaard difference and the common range over which it was averaged."""

    value: float  # bd_rate: percent; bd_psnr: dB
    low: float  # bd_rate: dB; bd_psnr: the unit of the rate (bpp)
    high: float


def psnr(a: Image, b: Image) -> float:
    """Peak signal-to-noise ratio of two `uint8` images (H, W, 3) in dB; inf if they are equal.

    10 log10(255^2 / MSE), the mean over all pixels and the three channels together. `ValueError`
    if the shapes differ or an array is not an 8-bit RGB image.
    """
    _check_images(a, b)
    difference = a.astype(np.int64) - b.astype(np.int64)
    squares = int(np.sum(difference * difference))  # exact
    if squares == 0:
        return math.inf
    return 10 * math.log10(255**2 * a.size / squares)


def ms_ssim(a: Image, b: Image) -> float:
    """Multi-scale structural similarity of two `uint8` images (H, W, 3), 1 if they are equal.

    Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment"
    (2003): five scales, an 11x11 Gaussian window, the mean over the channels; computed by
    pytorch_msssim, as all published curves of learned codecs are. nan if a side is shorter than
    161 pixels: the fifth scale would be smaller than the window. `ValueError` as `psnr`.
    """
    _check_images(a, b)
    if min(a.shape[:2]) < MS_SSIM_SMALLEST_SIDE:
        return math.nan
    import torch  # here, because PSNR and the BD-rate do without
    from pytorch_msssim import ms_ssim as measure

    x, y = (torch.tensor(image).permute(2, 0, 1)[None].float().contiguous() for image in (a, b))
    return float(measure(x, y, data_range=255))


def ms_ssim_db(value: float) -> float:
    """MS-SSIM in dB, -10 log10(1 - value), which spreads out the values near 1; inf for 1.

    Curves convert the mean over the images, since published curves give only that mean.
    """
    return math.inf if value >= 1 else -10 * math.log10(1 - value)


def bd_rate(
    rate_anchor: ArrayLike, psnr_anchor: ArrayLike, rate_test: ArrayLike, psnr_test: ArrayLike
) -> Delta:
    """Mean difference in rate of the test curve at equal quality, in percent of the anchor's.

    Negative: the test curve needs fewer bits. The logarithm of the rate is interpolated over
    the quality by PCHIP (monotone cubic) and averaged over the qualities that both curves
    reach; nothing is extrapolated. After Bjontegaard, VCEG-M33 (2001), with the interpolation
    of JCTVC-L1100 (2013); computed by the package bjontegaard.

    Rates in any unit that both share (bpp); qualities in dB (PSNR, or MS-SSIM in dB); two or more
    points, in any order, of which two make a straight line. `ValueError` for fewer, for a value
    that is not finite, a rate that is not positive, a quality that does not rise with the rate,
    or qualities that do not overlap.
    """
    return _delta("bd_rate", (rate_anchor, psnr_anchor), (rate_test, psnr_test))


def bd_psnr(
    rate_anchor: ArrayLike, psnr_anchor: ArrayLike, rate_test: ArrayLike, psnr_test: ArrayLike
) -> Delta:
    """Mean difference in quality of the test curve at equal rate, in dB; positive is better.

    `bd_rate` with the axes exchanged: the quality is interpolated over the logarithm of the rate,
    and averaged over the (logarithmic) rates that both curves reach, which must overlap.
    """
    return _delta("bd_psnr", (rate_anchor, psnr_anchor), (rate_test, psnr_test))


def _delta(name: str, *curves: tuple[ArrayLike, ArrayLike]) -> Delta:
    """A function of the package on anchor and test, over the rates or qualities that both reach."""
    anchor, test = (_curve(*curve) for curve in curves)
    axis, unit = (1, "dB") if name == "bd_rate" else (0, "bpp")
    (first, *_, last), (start, *_, end) = anchor[axis], test[axis]
    low, high = float(max(first, start)), float(min(last, end))
    if low >= high:
        raise ValueError(
            f"The two curves do not overlap: the anchor has {first:.3f} to {last:.3f} {unit}, the "
            f"test curve {start:.3f} to {end:.3f} {unit}."
        )
    import bjontegaard  # here: it imports all of matplotlib

    return Delta(float(getattr(bjontegaard, name)(*anchor, *test, **PCHIP)), low, high)


def _check_images(a: Image, b: Image) -> None:
    for image in (a, b):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            asked = "A metric needs uint8 images of shape (height, width, 3)"
            raise ValueError(f"{asked}, not {image.dtype} of shape {image.shape}.")
    if a.shape != b.shape:
        raise ValueError(f"The images differ in shape: {a.shape} and {b.shape}.")


def _curve(rate: ArrayLike, quality: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Rates and qualities, sorted by rate, after all checks."""
    rates, qualities = np.asarray(rate, float), np.asarray(quality, float)
    if rates.ndim != 1 or rates.shape != qualities.shape or len(rates) < 2:
        raise ValueError("A curve needs as many rates as qualities, two or more.")
    if not (np.isfinite(rates).all() and np.isfinite(qualities).all() and (rates > 0).all()):
        raise ValueError("A curve needs finite qualities and finite, positive rates.")
    order = np.argsort(rates, kind="stable")
    rates, qualities = rates[order], qualities[order]
    if (np.diff(rates) <= 0).any() or (np.diff(qualities) <= 0).any():
        raise ValueError("Quality does not rise strictly with the rate.")
    return rates, qualities
