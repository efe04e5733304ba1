"""Gains: other rates of one model, by the same integers everywhere."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.coding.gain import LEAST, MOST, UNIT, Gain
from models.coding.integer import EXACT, FRACTION_BITS, LIMIT
from models.coding.orders import raster
from models.coding.priors import code_with_context
from models.entropy.tables import (
    GRID,
    LONGEST,
    TOTAL,
    Tables,
    scale_thresholds,
    scaled_tables,
    to_frequencies,
)
from tests.helpers import codec, each_model, encode_y_hat, grid, image, latents_of, make, uniform

GAINS = (LEAST, 0.3, 0.72, 1.0, 1.39, MOST)
each_gain = pytest.mark.parametrize("gain", GAINS)
each_units = pytest.mark.parametrize("units", [256, 257, 2949, 4095, 4096, 4097, 9999, 65536])


# The arithmetic, against Python's integers ---------------------------------------------------


@each_units
def test_means_and_latents_are_those_of_pythons_integers(units):
    gain = Gain(units / UNIT)
    means = torch.cat([uniform([1], 400, low=-300, high=300), uniform([2], 400) * LIMIT]).round()
    means = torch.cat([means, torch.tensor([-LIMIT, -LIMIT + 1, -1, 0, 1, LIMIT])])
    scaled = [(int(m) * units + 2048) // 4096 for m in means]
    assert gain.means(means.clone()).tolist() == scaled
    symbols = uniform([3], len(means), low=-40, high=40).round()
    symbols[::7] *= 1e6
    coded = [64 * int(s) + m for s, m in zip(symbols, scaled, strict=True)]
    expected = [(c * 8192 + units) // (2 * units) for c in coded]
    expected = [min(max(e, -int(LIMIT)), int(LIMIT)) for e in expected]
    assert gain.y_hat(symbols, torch.tensor(scaled).double()).tolist() == expected


@each_units
def test_quotients_next_to_an_integer_are_not_rounded_up_to_it(units):
    """The largest sizes that are not clamped, where a float is furthest from telling them apart."""
    gain = Gain(units / UNIT)
    top = int(LIMIT) * units // 4096  # what is coded for the largest latent
    coded = [sign * (top - k) for sign in (-1, 1) for k in range(200)]
    expected = [min((c * 8192 + units) // (2 * units), int(LIMIT)) for c in coded]
    zeros = torch.zeros(len(coded)).double()
    found = gain.y_hat(zeros, torch.tensor(coded).double())
    assert found.tolist() == [max(e, -int(LIMIT)) for e in expected]


def test_every_number_in_a_quotient_is_exact():
    """numerator + denominator < 2**53 for all that the clamp does not decide."""
    largest = MOST * UNIT
    assert LIMIT * largest + UNIT / 2 + UNIT < EXACT  # means
    coded = LIMIT * largest / UNIT + 1  # anything larger becomes LIMIT
    assert coded * 2 * UNIT + largest + 2 * largest < EXACT  # y_hat
    assert scale_thresholds(FRACTION_BITS).max() * UNIT + largest < EXACT  # tables
    for size in (1e9, 2.0**53, 2.0**63):
        for sign, units in itertools.product((-1, 1), (256, 4095, 65536)):
            y_hat = Gain(units / UNIT).y_hat(torch.tensor([sign * size]).double(), torch.zeros(1))
            assert y_hat.item() == sign * LIMIT


@each_units
def test_a_table_is_that_of_the_scaled_scale(units):
    thresholds = scale_thresholds(FRACTION_BITS)
    found = Gain(units / UNIT).thresholds(thresholds)
    for threshold, scaled in zip(thresholds.int().tolist(), found.tolist(), strict=True):
        for scale in (scaled - 1, scaled, scaled + 1):
            assert (scale > scaled) == (scale * units > threshold * 4096)


@pytest.mark.parametrize("value", [0, -1, 1 / 17, 16.1, math.nan, math.inf])
def test_other_gains_are_refused(value):
    for use in (Gain, lambda g: codec("Hyperprior").compress(image(64, 64), g)):
        with pytest.raises(ValueError, match=r"from 0\.0625 to 16, not ") as caught:
            use(value)
        assert "\n" not in str(caught.value)


# Files ------------------------------------------------------------------------------------


@each_model
def test_a_gain_of_one_is_the_plain_file(name):
    x = image(70, 90)
    (plain,) = codec(name).compress(x)
    assert codec(name).compress(x, 1.0) == [plain] and plain[3] == 1
    assert codec(name).compress(x, 1 + 1e-5) == [plain]
    assert codec(name).compress(x, 1 + 1 / UNIT)[0][3] == 2


@each_model
@each_gain
def test_the_decoder_has_the_encoders_latents_on_any_number_of_threads(name, gain):
    """Also of latents outside every table, and beyond the range that integer networks work in."""
    made = codec(name)
    for size in (1.0, 1e6, 1e11):
        latents = {k: v * size for k, v in latents_of(made, 64, 128, batch=2).items()}
        torch.set_num_threads(1)
        streams, y_hat = encode_y_hat(made, latents, gain)
        assert grid(y_hat).any()
        for threads in (2, 1):
            torch.set_num_threads(threads)
            assert made.encode(latents, gain) == streams
            assert torch.equal(made.decode(streams, 64, 128, gain), y_hat)
        inside = latents["y"].abs() < 1e5
        step = 0.5 / gain + 1 / 64
        assert ((y_hat - latents["y"])[inside].abs() <= step + 1e-2 * (size > 1)).all()


def one_by_one(made):
    """The same order in smaller steps: raster for the wavefront, seven positions of a colour."""
    if made.order(2, 2)[0].tolist() != [0, 3]:
        made.order = raster
        return

    def code_y(coder, y, shape, z_hat):
        networks = made.frozen.networks
        anchors = -(-shape[2] * shape[3] // 2 // 7)  # steps that see no context
        psi = networks["h_s"](z_hat)
        return code_with_context(coder, y, shape, networks["context"], psi, made.order, anchors)

    made.order = lambda *size: [s for steps in type(made).order(*size) for s in steps.split(7)]
    made.code_y = code_y


@pytest.mark.parametrize("name", ["Joint", "Checkerboard"])
@pytest.mark.parametrize("size,gain", [((192, 320), 1.0), ((64, 320), 0.3), ((320, 64), 1.39)])
def test_the_order_of_coding_changes_no_latent(name, size, gain):
    made = make(name).freeze()
    latents = latents_of(made, *size)
    streams, y_hat = encode_y_hat(made, latents, gain)
    one_by_one(made)
    other, again = encode_y_hat(made, latents, gain)
    assert torch.equal(again, y_hat)
    assert other[0] == streams[0] and len(other[1][0]) == pytest.approx(len(streams[1][0]), abs=8)
    assert torch.equal(made.decode(other, *size, gain), y_hat)


@each_model
def test_finer_steps_take_more_bytes_and_leave_less_error(name):
    made = codec(name)
    with torch.no_grad():
        latents = made.analysis(image(128, 128))
    sizes, errors = [], []
    for gain in (0.25, 0.5, 1.0, 2.0, 4.0):
        streams = made.encode(latents, gain)
        y_hat = made.decode(streams, 128, 128, gain)
        sizes.append(sum(len(s[0]) for s in streams))
        errors.append((y_hat - latents["y"]).square().mean().item())
    assert sizes == sorted(set(sizes)) and errors == sorted(errors, reverse=True)


# Tables of Factorized -----------------------------------------------------------------------


def table_of(distribution, offset=0):
    """The table of a distribution of SciPy's around `offset`, in 1/64, as freezing makes it."""
    low, high = distribution.ppf([5e-10, 1 - 5e-10]) - offset / GRID
    symbols = np.arange(math.floor(low), math.ceil(high) + 1)
    edges = np.append(symbols, symbols[-1] + 1) + offset / GRID - 0.5
    masses = np.diff(distribution.cdf(edges))
    row = to_frequencies(np.append(masses, 1 - masses.sum()))
    return tables_of([row], [symbols[0]], offset)


def ideal(distribution, offset, symbols, gain):
    """Masses of the symbols (n,) of v * gain around `offset`, in 1/64."""
    edges = np.append(symbols, symbols[-1] + 1) + offset / GRID - 0.5
    return np.diff(distribution.cdf(edges / gain))


@pytest.mark.parametrize("units", [2949, 3482, 4833])
@pytest.mark.parametrize("width", [0.25, 0.4, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("kind", [stats.laplace, stats.logistic, stats.norm])
def test_scaled_tables_cost_little_more_than_the_density_itself(kind, width, units):
    """Two percent of the entropy, or 0.015 bits where it is small."""
    offset = 11
    distribution = kind(offset / GRID, width)  # the median is the offset
    table = scaled_tables(table_of(distribution, offset), units, UNIT)
    assert table.offsets.tolist() == [(offset * units + 2048) // 4096]
    symbols = table.first[0] + np.arange(table.lengths[0] - 1)
    masses = ideal(distribution, int(table.offsets[0]), symbols, units / UNIT)
    cost = -(masses * np.log2(table.frequencies[:-1] / TOTAL)).sum()
    entropy = -(masses[masses > 0] * np.log2(masses[masses > 0])).sum()
    assert masses.sum() > 1 - 1e-6
    assert cost <= 1.02 * entropy + 0.015


rows = st.lists(st.integers(1, 10**6), min_size=2, max_size=30)


def tables_of(parts, first, offset):
    arrays = np.concatenate(parts), [len(part) for part in parts], first, [offset] * len(parts)
    return Tables(*(np.array(array, dtype=np.int32) for array in arrays))


@given(st.lists(rows, min_size=1, max_size=4), st.integers(256, 65536), st.integers(-500, 500))
def test_any_tables_have_scaled_ones(rows, units, offset):
    """Sound ones, which the constructor checks, each as if it were alone."""
    parts = [to_frequencies(np.array(row, dtype=float)) for row in rows]
    first = [-(len(part) // 3) - k for k, part in enumerate(parts)]
    scaled = scaled_tables(tables_of(parts, first, offset), units, UNIT)
    assert scaled.lengths.max() <= LONGEST
    for k, row in enumerate(scaled.rows()):
        alone = scaled_tables(tables_of(parts[k : k + 1], first[k : k + 1], offset), units, UNIT)
        assert np.array_equal(alone.frequencies, row) and row.min() >= 1
        low = (offset / GRID + first[k] - 0.5) * units / UNIT  # where the old table begins
        start = scaled.offsets[k] / GRID + scaled.first[k] - 0.5
        assert start <= low + 1 / 64 * units / UNIT or len(row) == LONGEST
