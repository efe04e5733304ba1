"""Densities, likelihoods and tables against scipy and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.entropy.density import LIKELIHOOD_BOUND, TAIL_MASS, NonParametricDensity
from models.entropy.gaussian import gaussian_likelihood, scale_levels
from models.entropy.tables import (
    TOTAL,
    Tables,
    density_tables,
    gaussian_tables,
    scale_thresholds,
    to_frequencies,
)
from tests.helpers import uniform

CHANNELS = 5


def trained_like(init_scale=10.0):
    """A density with random parameters, as after training: skewed, with several modes."""
    density = NonParametricDensity(CHANNELS, init_scale=init_scale)
    with torch.no_grad():
        for k, (name, parameter) in enumerate(density.named_parameters()):
            if name != "quantiles":
                start = parameter * (not name.startswith("biases"))  # biases start random
                parameter.copy_(start + uniform([7, k], *parameter.shape) * 0.7)
    density.solve_quantiles()
    return density


@pytest.fixture(scope="module")
def density():
    return trained_like()


def test_cumulative_is_monotone(density):
    v = torch.linspace(-300, 300, 4001, dtype=torch.float64).expand(CHANNELS, 1, -1)
    logits = trained_like().double().logits_cumulative(v).detach()
    assert (logits.diff(dim=-1) > 0).all()
    assert logits[:, :, 0].max() < -5 and logits[:, :, -1].min() > 5
    single = torch.sigmoid(density.logits_cumulative(v.float())).detach()
    assert (single.diff(dim=-1) > -1e-6).all()


def test_masses_keep_their_accuracy_in_both_tails(density):
    """By the derivative: the mass of a far interval is density times one, about."""
    double = trained_like().double()
    for tail in (0, 2):
        edge = density.quantiles[:, 0, tail].double().detach()[:, None] * 2
        inner, outer = (edge - 0.5)[:, None], (edge + 0.5)[:, None]
        logits = torch.stack([double.logits_cumulative(v) for v in (inner, outer)]).detach()
        small = torch.exp(-logits.abs())  # sigmoid of a very negative logit
        expected = (small[0] - small[1]).abs()[:, 0]
        assert expected.max() < 1e-14
        torch.testing.assert_close(density.masses(edge), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("probability", [TAIL_MASS / 2, 0.01, 0.5, 0.9, 1 - TAIL_MASS / 2])
def test_quantiles_are_where_the_cumulative_has_their_probability(density, probability):
    at = density.solve_quantile(probability)
    target = np.log(probability) - np.log1p(-probability)
    double = trained_like().double()
    logits = double.logits_cumulative(at[:, None, None]).flatten()
    assert (logits - target).abs().max() < 1e-9


def test_quantiles_far_from_zero_are_found():
    shifted = trained_like()
    with torch.no_grad():
        shifted.biases[0].add_(3000.0)
    median = shifted.solve_quantile(0.5)
    assert (median < -1000).all()
    assert shifted.double().logits_cumulative(median[:, None, None]).abs().max() < 1e-9


def test_gradient_leaves_the_likelihood_bound(density):
    v = torch.full((1, CHANNELS, 1, 1), 5000.0, requires_grad=True)
    assert (density.likelihood(v) == float(np.float32(LIKELIHOOD_BOUND))).all()
    assert torch.isfinite(torch.autograd.grad(density.likelihood(v).log().sum(), v)[0]).all()


@pytest.mark.parametrize("scale", [0.11, 0.5, 3.0, 40.0])
def test_gaussian_likelihood_equals_scipy(scale):
    mean = 0.3
    v = torch.arange(-60, 61).float()
    ours = gaussian_likelihood(v, torch.tensor(scale), mean).numpy()
    normal = stats.norm(mean, scale)
    below = v.numpy().astype(np.float64)
    # Differences in the tail where they do not cancel.
    mirrored = np.where(below > mean, 2 * mean - below, below)
    expected = normal.cdf(mirrored + 0.5) - normal.cdf(mirrored - 0.5)
    np.testing.assert_allclose(ours, np.maximum(expected, LIKELIHOOD_BOUND), rtol=2e-4, atol=1e-9)


def test_gaussian_likelihood_is_bounded_and_keeps_a_gradient():
    scales = torch.tensor([-3.0, 0.11, 1.0], requires_grad=True)
    likelihoods = gaussian_likelihood(torch.tensor([50.0, 50.0, 50.0]), scales)
    assert (likelihoods == float(np.float32(LIKELIHOOD_BOUND))).all()
    likelihoods = gaussian_likelihood(torch.tensor([1.0, 1.0, 1.0]), scales)
    likelihoods.log().neg().sum().backward()
    assert torch.isfinite(scales.grad).all()
    assert scales.grad[0] < 0  # widening a scale below the bound helps, so it may


def test_scale_levels_and_thresholds():
    levels = scale_levels()
    assert len(levels) == 64
    np.testing.assert_allclose(levels.numpy(), np.geomspace(0.11, 256, 64), rtol=1e-12)
    thresholds = scale_thresholds(12) / 2**12
    assert len(thresholds) == 63
    assert (thresholds > levels[:-1]).all() and (thresholds < levels[1:]).all()
    nearest = torch.bucketize(levels, thresholds)
    assert nearest.tolist() == list(range(64))


def test_gaussian_tables_are_the_closed_form():
    tables, levels = gaussian_tables(), scale_levels().tolist()
    assert len(tables) == 64
    for row, first, sigma in zip(tables.rows(), tables.first, levels, strict=True):
        symbols = first + np.arange(len(row) - 1)
        assert symbols[0] == -symbols[-1]
        below, normal = -np.abs(symbols), stats.norm(0, sigma)
        expected = normal.cdf(below + 0.5) - normal.cdf(below - 0.5)
        # One unit that every entry has, one of rounding; the largest takes what is left over.
        difference = np.delete(row[:-1] / TOTAL - expected, np.argmax(row))
        assert np.abs(difference).max() * TOTAL <= 2 + len(row) * expected.max()
        assert row[-1] / TOTAL < TAIL_MASS + 2 / TOTAL
        assert 2 * normal.cdf(symbols[0] - 0.5) <= TAIL_MASS


def test_density_tables_follow_the_density(density):
    tables = density_tables(density)
    assert len(tables) == CHANNELS
    medians = density.medians().flatten().numpy()
    assert (np.abs(tables.offsets / 64 - medians) <= 0.5 / 64 + 1e-6).all()
    for channel, (row, first) in enumerate(zip(tables.rows(), tables.first, strict=True)):
        assert row.sum() == TOTAL and row.min() >= 1
        symbols = first + np.arange(len(row) - 1) + tables.offsets[channel] / 64
        v = torch.from_numpy(symbols).expand(CHANNELS, -1)
        expected = density.masses(v)[channel].numpy()
        cost = (expected * np.log2(expected / (row[:-1] / TOTAL))).sum()
        assert abs(cost) < 1e-3  # bits per symbol
        low, _, high = density.quantiles[channel, 0].tolist()
        assert symbols[0] - 0.5 <= low + 1 and symbols[-1] + 0.5 >= high - 1


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=200).filter(lambda m: sum(m) > 1e-3))
def test_any_masses_become_positive_frequencies_of_the_right_sum(masses):
    masses = np.array(masses)
    frequencies = to_frequencies(masses)
    assert frequencies.sum() == TOTAL and frequencies.min() >= 1
    wanted = masses / masses.sum() * TOTAL
    others = np.arange(len(masses)) != np.argmax(frequencies)
    assert (np.abs(frequencies - wanted)[others] <= 2 + len(masses)).all()


BROKEN = {
    "sum": lambda t: t["frequencies"].__setitem__(0, t["frequencies"][0] + 1),
    "zero": lambda t: t["frequencies"].__setitem__(slice(0, 2), torch.tensor([0, 3])),
    "negative length": lambda t: t["lengths"].__setitem__(0, -4),
    "short length": lambda t: t["lengths"].__setitem__(0, t["lengths"][0] - 1),
    "cut": lambda t: t.update(frequencies=t["frequencies"][:-1]),
    "missing first": lambda t: t.update(first=t["first"][:-1]),
    "empty": lambda t: t.update({k: v[:0] for k, v in t.items()}),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_inconsistent_tables_are_refused(damage):
    tensors = gaussian_tables().tensors()
    damage(tensors)
    with pytest.raises(ValueError, match="inconsistent"):
        Tables.from_tensors(tensors)
