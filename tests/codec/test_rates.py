"""Any rate: lambdas between those trained, sizes and qualities."""

import math
from functools import cache

import pytest

from models import rates, search
from models.coding.container import read_header
from models.coding.gain import UNIT, Gain
from models.errors import UsageError
from models.rates import Aim, approach, at_lambda, fit
from models.search import Coded
from tests.helpers import NAMES, each_model, image, make

TRAINED = [0.0067, 0.013, 0.025, 0.0483]
X = (image(128, 192) * 255).round() / 255


@cache
def codec(name, lmbda):
    """A tiny frozen model that says its lambda."""
    return make(name, lmbda=lmbda).freeze()


@pytest.mark.parametrize(
    "lmbda,own",
    [(0.0067, 0.0067), (0.0079, 0.0067), (0.0093, 0.013), (0.013, 0.013), (0.018, 0.013),
     (0.0212, 0.025), (0.0295, 0.025), (0.0347, 0.0483), (0.0483, 0.0483),
     (0.1, 0.0483), (0.001, 0.0067)],
)  # fmt: skip
def test_a_lambda_is_had_from_the_checkpoint_above_or_one_just_below(lmbda, own):
    chosen, gain = at_lambda(TRAINED, lmbda)
    assert chosen == own and gain == pytest.approx(math.sqrt(lmbda / own))


def test_lambdas_out_of_reach_are_refused_with_the_reach():
    for lmbda in (0.0001, 0.3, 1e9):
        with pytest.raises(UsageError, match=r"goes from 0\.00042 to 0\.19"):
            at_lambda(TRAINED, lmbda)
    for lmbda in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="number above 0"):
            at_lambda(TRAINED, lmbda)


@pytest.mark.parametrize("exponent", [0.5, 1.2, 3.0])
@pytest.mark.parametrize("target", [500, 20_000, 90_000])
def test_a_size_is_met_in_few_tries_whatever_the_slope(exponent, target):
    """Of files whose size is a power of the gain, in whole words, with a little noise."""

    def code(gain):
        size = 20_000 * gain**exponent * (1 + 0.002 * math.sin(1e4 * gain))
        return Coded(bytes(int(size) // 4 * 4), 1000)

    tried = {}
    gain = approach(code, Aim(most=target), 1.0, tried, rates.TRIES)
    size = len(tried[Gain(gain).units].data)
    reachable = 20_000 * 16**-exponent < target < 19_900 * 16**exponent
    if reachable:
        assert 0.99 * target <= size <= target
    elif target > 20_000:  # as large as it can be
        assert gain > 15.9
    assert len(tried) <= rates.TRIES and all(1 / 16 <= units / UNIT <= 16 for units in tried)


@each_model
@pytest.mark.parametrize("part", [0.7, 1.0, 1.15])
def test_files_are_as_large_as_they_may_be(name, part):
    most = int(part * len(codec(name, 0.013).compress(X)[0]))
    model, data = fit(lambda lmbda: codec(name, lmbda), [0.0067, 0.013], X, Aim(most=most))
    header = read_header(data)
    assert model is codec(name, header.lmbda) and header.lmbda in (0.0067, 0.013)
    assert 0.98 * most <= len(data) <= most
    assert model.decompress([data]).shape == X.shape


@pytest.mark.parametrize("name", NAMES[1:])  # tiny Factorized: its steps change no pixel
def test_files_are_as_small_as_a_quality_allows(name):
    load = lambda _: codec(name, 0.013)  # noqa: E731
    latents = search.analysis(codec(name, 0.013), X)
    plain = search.code(codec(name, 0.013), X, latents)
    wanted = plain.psnr - 0.2  # tiny models hardly change with the gain
    _, data = fit(load, [0.013], X, Aim(psnr=wanted))
    gain = read_header(data).gain
    assert search.code(codec(name, 0.013), X, latents, gain).psnr >= wanted
    assert len(data) < len(plain.data)


def test_two_codecs_are_loaded_at_most_and_the_transform_runs_once_in_each(monkeypatch):
    loaded = []

    def load(lmbda):
        loaded.append(lmbda)
        return codec("Hyperprior", lmbda)

    analysed = []
    analysis = search.analysis
    monkeypatch.setattr(
        search, "analysis", lambda model, x: analysed.append(model) or analysis(model, x)
    )
    for most in (400, 1000, 3000):
        loaded.clear(), analysed.clear()
        fit(load, TRAINED, X, Aim(most=most))
        assert len(loaded) == len(analysed) == len(set(loaded)) <= 2


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_search_starts_where_the_aim_is_met(name, monkeypatch):
    most = int(0.9 * len(codec(name, 0.013).compress(X)[0]))
    load = lambda _: codec(name, 0.013)  # noqa: E731
    steps = []
    monkeypatch.setattr(codec(name, 0.013), "progress", lambda items: steps.extend(items) or items)
    _, plain = fit(load, [0.013], X, Aim(most=most))
    _, data = fit(load, [0.013], X, Aim(most=most), 6)
    assert len(data) <= most and len(steps) in (6, 12, 18)
    errors = []
    for file in (plain, data):
        decoded = (codec(name, 0.013).decompress([file]) * 255).round()
        errors.append((decoded - X * 255).square().mean().item())
    assert errors[1] <= errors[0]


def test_what_cannot_be_met_is_said_with_how_near_it_came():
    load = lambda _: codec("Hyperprior", 0.013)  # noqa: E731
    with pytest.raises(UsageError, match=r"smallest file has \d+ bytes .* more than the 40"):
        fit(load, [0.013], X, Aim(most=40))
    with pytest.raises(UsageError, match=r"best file has \d+\.\d\d dB, less than the 90"):
        fit(load, [0.013], X, Aim(psnr=90))
    for wrong in ({}, {"most": 5, "psnr": 30}, {"most": 0}, {"psnr": -1}, {"psnr": math.nan}):
        with pytest.raises(UsageError):
            Aim(**wrong)
    for bpp in (-1, 0, math.inf, math.nan):
        with pytest.raises(UsageError, match="bpp is a number"):
            Aim.of_rate(bpp, 100)
