"""The image metrics and Bjontegaard differences against closed forms and outside packages."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pytorch_msssim import ms_ssim as reference

from evaluation.metrics import bd_psnr, bd_rate, ms_ssim, ms_ssim_db, psnr

ZOO = (  # eight points of a published curve (bmshj2018-factorized), bpp and dB
    [0.122623, 0.188527, 0.287808, 0.440379, 0.649678, 0.967437, 1.364703, 1.900541],
    [26.9088, 28.2179, 29.6169, 31.2771, 32.9628, 35.0216, 36.9372, 38.9311],
)
STUDY = ([0.278833, 0.418083, 0.650125, 0.92675], [28.71093, 30.14009, 31.84871, 33.6627])


def noisy_pair(height, width, amplitude=20, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    smooth = 128 + 90 * np.sin(rows / 17)[..., None] * np.cos(columns[..., None] / (11, 13, 19))
    noisy = smooth + rng.normal(0, amplitude, smooth.shape)
    return smooth.astype(np.uint8), np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("offset", [1, 7, 255])
def test_psnr_of_a_constant_offset_has_a_closed_form(offset):
    a = np.zeros((5, 9, 3), np.uint8)
    assert_allclose(psnr(a, a + np.uint8(offset)), 20 * math.log10(255 / offset), rtol=1e-14)


def test_psnr_counts_one_wrong_sample_among_all_and_is_symmetric():
    a = np.full((4, 6, 3), 200, np.uint8)
    b = a.copy()
    b[2, 3, 1] = 203
    assert_allclose(psnr(a, b), 10 * math.log10(255**2 * 72 / 9), rtol=1e-14)
    assert psnr(a, b) == psnr(b, a) and psnr(a, a.copy()) == math.inf


def test_ms_ssim_equals_pytorch_msssim_and_compressai_convention():
    a, b = noisy_pair(180, 170)
    x, y = (torch.from_numpy(i.copy()).permute(2, 0, 1)[None].float() for i in (a, b))
    ours = ms_ssim(a, b)
    assert 0.3 < ours < 0.999
    assert_allclose(ms_ssim(a, a.copy()), 1, atol=1e-6)
    assert_allclose(ours, reference(x, y, data_range=255).item(), atol=1e-6)
    # CompressAI's examples measure on [0, 1]
    assert_allclose(ours, reference(x / 255, y / 255, data_range=1.0).item(), atol=1e-5)


def test_ms_ssim_of_an_image_too_small_for_five_scales_is_nan():
    a, b = noisy_pair(161, 161)
    assert math.isfinite(ms_ssim(a, b))
    assert math.isnan(ms_ssim(a[:160], b[:160]))
    assert math.isnan(ms_ssim(a[:, :1], b[:, :1]))


def test_ms_ssim_in_decibels():
    assert_allclose([ms_ssim_db(0.9), ms_ssim_db(0.999)], [10, 30], rtol=1e-12)
    assert ms_ssim_db(0.0) == 0
    assert ms_ssim_db(1.0) == math.inf
    assert math.isnan(ms_ssim_db(math.nan))


@pytest.mark.parametrize("metric", [psnr, ms_ssim])
@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_metrics_refuse_what_is_not_an_rgb_image(metric, wrong):
    good = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="uint8 images"):
        metric(good, wrong)
    with pytest.raises(ValueError, match="differ in shape"):
        metric(good, good[:3])


def test_half_the_rate_is_minus_fifty_percent_and_one_decibel_more_one_decibel():
    rates, qualities = map(np.array, ZOO)
    delta = bd_rate(rates, qualities, rates / 2, qualities)
    assert_allclose(delta, (-50, qualities[0], qualities[-1]), rtol=1e-12)
    delta = bd_psnr(rates, qualities, rates, qualities + 1)
    assert_allclose(delta, (1, rates[0], rates[-1]), rtol=1e-9)


def test_hand_worked_example_of_two_straight_lines():
    """Anchor: log10 R = -1 + (Q - 30) / 10; test: log10 R = -1 + (Q - 32) / 8.

    Common qualities: 32 to 40 dB. The test curve's log10 R is lower by 0.2 at 32 dB and by 0
    at 40 dB, 0.1 on average: 10 ** -0.1 - 1 = -20.567 %.
    Common rates: 0.1 to 1. Its Q is higher by 2 at R = 0.1 and by 0 at R = 1: 1 dB.
    """
    curves = ([0.1, 1], [30, 40], [0.1, 1], [32, 40])
    assert_allclose(bd_rate(*curves), (100 * (10**-0.1 - 1), 32, 40), rtol=1e-12)
    assert_allclose(bd_psnr(*curves), (1, 0.1, 1), rtol=1e-12)


def test_the_range_is_the_common_one_and_order_does_not_matter():
    delta = bd_rate(*ZOO, *STUDY)
    assert (delta.low, delta.high) == (STUDY[1][0], STUDY[1][-1])
    shuffled = [list(reversed(values)) for values in STUDY]
    assert bd_rate(*ZOO, *shuffled) == delta


@pytest.mark.parametrize(
    "rates, qualities, message",
    [
        ([0.5], [30], "two or more"),
        ([0.5, 1], [30], "as many rates"),
        ([0.0, 1], [30, 33], "positive"),
        ([0.5, 1], [30, math.inf], "finite"),
        ([0.5, 1], [33, 30], "does not rise"),
        ([0.5, 0.5], [30, 33], "does not rise"),
        ([3, 4], [40, 41], "the anchor has (26.909 to 38.931 dB|0.123 to 1.901 bpp)"),
    ],
)
def test_what_gives_no_difference_is_refused_in_words(rates, qualities, message):
    for function in (bd_rate, bd_psnr):
        with pytest.raises(ValueError, match=message):
            function(*ZOO, rates, qualities)
