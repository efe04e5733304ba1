"""Gains: other rates of one model, by the same integers everywhere."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.coding.container import pack, read_header, unpack
from models.coding.gain import LEAST, MOST, UNIT, Gain
from models.coding.integer import EXACT, FRACTION_BITS, LIMIT
from models.coding.orders import raster
from models.coding.range_coder import Writer
from models.entropy.tables import (
    GRID,
    LONGEST,
    TOTAL,
    Tables,
    scale_thresholds,
    scaled_tables,
    to_frequencies,
)
from models.errors import StreamError
from tests.helpers import NAMES, codec, grid, image, latents_of, make, uniform

each_model = pytest.mark.parametrize("name", NAMES)
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


@given(st.integers(256, 65536), st.floats(-1000, 1000), st.integers(-64000, 64000))
def test_a_latent_comes_back_within_half_a_step(units, y, mean):
    gain = Gain(units / UNIT)
    means = gain.means(torch.tensor([float(mean)]).double())
    symbols = gain.symbols(torch.tensor([y]), means)
    back = gain.y_hat(symbols, means).item() / GRID
    assert abs(back - y) <= 0.5 / gain.value + 1 / 128 + 1e-4


@pytest.mark.parametrize("value", [0, -1, 1 / 17, 16.1, math.nan, math.inf])
def test_other_gains_are_refused(value):
    for use in (Gain, lambda g: codec("Hyperprior").compress(image(64, 64), g)):
        with pytest.raises(ValueError, match=r"from 0\.0625 to 16, not ") as caught:
            use(value)
        assert "\n" not in str(caught.value)


def test_gains_are_multiples_of_a_4096th():
    assert Gain(0.72).value == 2949 / 4096 and Gain(0.72).units == 2949


# Files ------------------------------------------------------------------------------------


@each_model
@each_gain
def test_files_of_any_gain_come_back(name, gain):
    made = codec(name)
    x = image(65, 100, batch=2)
    files = made.compress(x, gain)
    header = read_header(files[0])
    assert header.gain == Gain(gain).value and header.digest == made.digest
    out = made.decompress(files)
    assert out.shape == x.shape
    assert files[1:] == made.compress(x[1:], gain)
    assert torch.equal(made.decompress(files[1:])[0].round(decimals=4), out[1].round(decimals=4))


@given(st.sampled_from(NAMES), st.integers(256, 65536), st.tuples(*[st.integers(1, 140)] * 2))
@settings(max_examples=15)
def test_round_trips_of_any_gain_and_size(name, units, size):
    made = codec(name)
    x = image(*size, seed=units)
    (data,) = made.compress(x, units / UNIT)
    assert made.decompress([data]).shape == x.shape
    assert unpack(data)[0].gain == units / UNIT


@each_model
def test_a_gain_of_one_is_the_plain_file(name):
    x = image(70, 90)
    (plain,) = codec(name).compress(x)
    assert codec(name).compress(x, 1.0) == [plain] and plain[3] == 1
    assert codec(name).compress(x, 1 + 1e-5) == [plain]
    assert codec(name).compress(x, 1 + 1 / UNIT)[0][3] == 2


def encode_y_hat(made, latents, gain):
    """Streams, and the y_hat that the encoder itself arrives at."""
    tables, gain = made.coding_tables(Gain(gain)), Gain(gain)
    batch = latents["y"].shape[0]
    plain = [Writer(made.frozen.coding["z"], batch)] if "z" in made.streams else []
    writers = dict(zip(made.streams, [*plain, Writer(tables["y"], batch, gain)], strict=True))
    with torch.no_grad():
        y_hat = made.code(writers, latents, {k: v.shape for k, v in latents.items()})
    return [writers[k].finish() for k in made.streams], y_hat


@each_model
@each_gain
def test_the_decoder_has_the_encoders_latents(name, gain):
    made = codec(name)
    for size in (1.0, 1e6):
        latents = {k: v * size for k, v in latents_of(made, 128, 192, batch=2).items()}
        streams, y_hat = encode_y_hat(made, latents, gain)
        assert streams == made.encode(latents, gain)
        assert torch.equal(made.decode(streams, 128, 192, gain), y_hat)
        assert grid(y_hat).any()
        inside = latents["y"].abs() < 1e5
        step = 0.5 / gain + 1 / 64
        assert ((y_hat - latents["y"])[inside].abs() <= step + 1e-2 * (size > 1)).all()


@pytest.mark.parametrize("name", NAMES[2:])
@each_gain
def test_the_order_of_coding_changes_no_latent(name, gain):
    """Raster order in place of the wavefront; anchors and others one by one."""
    made = make(name).freeze()
    latents = latents_of(made, 128, 192)
    streams, y_hat = encode_y_hat(made, latents, gain)
    if made.order(2, 2)[0].tolist() == [0, 3]:  # anchors first, and they alone see no context
        made.order = lambda *size: [s for steps in type(made).order(*size) for s in steps.split(7)]
        anchors = -(-8 * 12 // 2 // 7)
        code = made.code_y

        def code_y(coder, y, shape, z_hat):
            from models.coding.priors import code_with_context

            networks = made.frozen.networks
            psi = networks["h_s"](z_hat)
            return code_with_context(coder, y, shape, networks["context"], psi, made.order, anchors)

        assert code.__func__ is type(made).code_y
        made.code_y = code_y
    else:
        made.order = raster
    other, again = encode_y_hat(made, latents, gain)
    assert torch.equal(again, y_hat)
    assert other[0] == streams[0] and len(other[1][0]) == pytest.approx(len(streams[1][0]), abs=8)
    assert torch.equal(made.decode(other, 128, 192, gain), y_hat)


@each_model
def test_threads_change_nothing_at_a_gain(name):
    made = codec(name)
    latents = latents_of(made, 192, 192)
    torch.set_num_threads(1)
    one = made.encode(latents, 0.85)
    torch.set_num_threads(2)
    assert made.encode(latents, 0.85) == one
    assert torch.equal(made.decode(one, 192, 192, 0.85), encode_y_hat(made, latents, 0.85)[1])


@each_model
def test_finer_steps_take_more_bytes_and_leave_less_error(name):
    made = codec(name)
    with torch.no_grad():
        latents = made.analysis(image(192, 192))
    sizes, errors = [], []
    for gain in (0.25, 0.5, 1.0, 2.0, 4.0):
        streams = made.encode(latents, gain)
        y_hat = made.decode(streams, 192, 192, gain)
        sizes.append(sum(len(s[0]) for s in streams))
        errors.append((y_hat - latents["y"]).square().mean().item())
    assert sizes == sorted(set(sizes)) and errors == sorted(errors, reverse=True)


def test_files_of_a_batch_are_of_one_gain():
    made = codec("Hyperprior")
    files = made.compress(image(64, 64)) + made.compress(image(64, 64), 0.5)
    with pytest.raises(StreamError, match="one gain"):
        made.decompress(files)


@each_model
def test_another_gain_than_the_files_own_is_another_image_or_a_sentence(name):
    made = codec(name)
    header, streams = unpack(made.compress(image(64, 128), 0.5)[0])
    right = made.decompress([pack(replace(header, lengths=()), streams)])
    try:
        wrong = made.decompress([pack(replace(header, lengths=(), gain=2.0), streams)])
    except StreamError as error:
        assert str(error).endswith(".")
    else:
        assert not torch.equal(wrong, right)


# Tables of Factorized -----------------------------------------------------------------------


def table_of(distribution, offset=0):
    """The table of a distribution of SciPy's around `offset`, in 1/64, as freezing makes it."""
    low, high = distribution.ppf([5e-10, 1 - 5e-10]) - offset / GRID
    symbols = np.arange(math.floor(low), math.ceil(high) + 1)
    edges = np.append(symbols, symbols[-1] + 1) + offset / GRID - 0.5
    masses = np.diff(distribution.cdf(edges))
    row = to_frequencies(np.append(masses, 1 - masses.sum()))
    parts = row, [len(row)], [symbols[0]], [offset]
    return Tables(*(np.array(part, dtype=np.int32) for part in parts))


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


@pytest.mark.parametrize("name", ["Factorized"])
@pytest.mark.parametrize("units", [256, 2949, 4096, 5694, 65536])
def test_scaled_tables_are_tables(name, units):
    tables = codec(name).frozen.tables["y"]
    scaled = scaled_tables(tables, units, UNIT)  # whose constructor checks the sums
    assert len(scaled) == len(tables) and scaled.lengths.max() <= LONGEST
    if units == UNIT:
        for one, other in zip(tables.tensors().values(), scaled.tensors().values(), strict=True):
            assert (one - other).abs().max() <= tables.lengths.max()  # one of each, off the largest
    for k, row in enumerate(scaled.rows()):
        low = tables.offsets[k] / GRID + tables.first[k] - 0.5
        first = (scaled.offsets[k] / GRID + scaled.first[k] - 0.5) / (units / UNIT)
        assert first <= low + 1 / 64 or scaled.lengths[k] == LONGEST
        assert row.min() >= 1


rows = st.lists(st.integers(1, 10**6), min_size=2, max_size=30)


@given(st.lists(rows, min_size=1, max_size=4), st.integers(256, 65536), st.integers(-500, 500))
def test_any_tables_have_scaled_ones(rows, units, offset):
    parts = [to_frequencies(np.array(row, dtype=float)) for row in rows]
    lengths = [len(part) for part in parts]
    first = [-(n // 3) - k for k, n in enumerate(lengths)]
    arrays = np.concatenate(parts), lengths, first, [offset] * len(parts)
    tables = Tables(*(np.array(array, dtype=np.int32) for array in arrays))
    scaled = scaled_tables(tables, units, UNIT)
    for row, part, start in zip(scaled.rows(), parts, first, strict=True):  # each as if alone
        arrays = part, [len(part)], [start], [offset]
        one = Tables(*(np.array(array, dtype=np.int32) for array in arrays))
        assert np.array_equal(scaled_tables(one, units, UNIT).frequencies, row)


def test_known_counts_are_kept():
    """At a third of the steps every third edge is one of the old ones."""
    row = np.array([3, 1000, 50_000, 0, 50_000, 1000, 3, 4, 2])
    row[3] = TOTAL - row.sum()
    arrays = row, [len(row)], [-3], [7]
    tables = Tables(*(np.array(array, dtype=np.int32) for array in arrays))
    scaled = scaled_tables(tables, 3 * UNIT, UNIT)
    assert scaled.offsets.tolist() == [21] and scaled.first.tolist() == [-10]
    thirds = scaled.frequencies[:-1].reshape(-1, 3)
    assert np.abs(thirds.sum(1) - row[:-1]).max() <= 30  # one for each entry comes off the largest
    assert thirds[3, 1] > thirds[3, 0] == pytest.approx(thirds[3, 2], rel=0.01)
