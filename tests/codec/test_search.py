"""The encoder's search: never worse, ordinary files, bounded memory."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from models import search
from models.coding.container import read_header
from models.errors import UsageError
from models.images import to_uint8
from models.presets import OperatingPoint
from models.search import Relaxed
from tests.helpers import M, N, codec, each_model, image, make

LMBDA = 0.013  # of the tiny models


def pixels_of(*size, seed=0):
    """An image (1, 3, H, W) of whole levels."""
    return (image(*size, seed) * 255).round() / 255


def loss_of(name, data, x):
    """lambda * MSE of the decoded 8-bit image + bits per pixel of the file, by another decoder."""
    decoder = make(name).freeze()
    decoded = to_uint8(decoder.decompress([data])).astype(int)
    error = decoded - (x[0].permute(1, 2, 0).numpy() * 255).round()
    return LMBDA * (error**2).mean() + 8 * len(data) / (x.shape[2] * x.shape[3])


@each_model
@pytest.mark.parametrize(
    ("size", "effort", "ratio"), [((1, 1), 1, 1), ((65, 33), 8, 1), ((64, 128), 40, 0.9)]
)
def test_a_searched_file_is_never_worse_than_the_plain_one(name, size, effort, ratio):
    x = pixels_of(*size)
    (plain,) = codec(name).compress(x)
    data = search.compress(codec(name), x, effort)
    assert loss_of(name, data, x) <= ratio * loss_of(name, plain, x)
    header, before = read_header(data), read_header(plain)
    assert replace(header, lengths=()) == replace(before, lengths=())


@each_model
@pytest.mark.parametrize("found", [lambda v: v * 50, lambda v: v * torch.nan])
def test_where_the_search_fails_the_plain_file_is_written(name, found, monkeypatch):
    x = pixels_of(64, 64)

    def descent(model, target, latents, *_):
        for v in latents.values():
            v.copy_(found(v))
        yield

    monkeypatch.setattr(search, "_descent", descent)
    assert search.compress(codec(name), x, 1) == codec(name).compress(x)[0]


@each_model
def test_what_decides_is_the_file_and_the_decoded_image(name):
    x = pixels_of(70, 90)
    model = codec(name)
    coded = search.code(model, x, search.analysis(model, x))
    assert coded.data == model.compress(x)[0]
    loss = LMBDA * coded.mse + coded.bpp
    assert loss == pytest.approx(loss_of(name, coded.data, x), rel=1e-6)


@each_model
def test_a_search_is_repeatable_and_leaves_the_model_and_latents_alone(name):
    x = pixels_of(64, 64)
    model = codec(name)
    latents = search.analysis(model, x)
    before = {key: v.clone() for key, v in latents.items()}
    trained = [p.requires_grad for p in model.parameters()]
    first, again, other = (search.search(model, x, latents, 3, seed=k) for k in (0, 0, 1))
    assert all(torch.equal(latents[key], before[key]) for key in before)
    assert all(torch.equal(first[key], again[key]) for key in before)
    assert not any(torch.equal(first[key], other[key]) for key in before)
    assert not any(v.requires_grad for v in first.values())
    assert [p.requires_grad for p in model.parameters()] == trained
    assert all(p.grad is None for p in model.parameters()) and not model.training


@pytest.mark.parametrize("name", ["Factorized", "CheckerboardAutogressive"])
def test_windows_bound_the_memory_and_search_everything(name, monkeypatch):
    monkeypatch.setattr(search, "WINDOW", 128)
    model, x = codec(name), pixels_of(130, 300)
    latents = search.analysis(model, x)
    sizes, steps, done = [], [], []

    def shown(items):
        for k in items:
            yield k
            steps.append(k)

    def synthesised(_, inputs, __):
        sizes.append(inputs[0].shape[2:])
        done.append(len(steps))

    monkeypatch.setattr(model, "progress", shown)
    hook = model.g_s[0].register_forward_hook(synthesised)
    try:
        found = search.search(model, x, latents, 4)
    finally:
        hook.remove()
    most = (128 + 2 * search.MARGIN) // 16
    assert all(max(size) <= most for size in sizes)
    assert done == steps == list(range(24))
    moved = (found["y"] != latents["y"]).any(1)[0]
    for top, left in itertools.product((0, 8), (0, 8, 16)):
        assert moved[top : top + 8, left : left + 8].any()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.02])
def test_relaxed_rounding_goes_up_as_often_as_it_should(temperature):
    fraction = 0.3
    rounding = Relaxed(temperature, torch.Generator().manual_seed(0))
    v = torch.full((40_000,), 5 + fraction)
    up = (rounding(v) > 5.5).float().mean().item()
    odds = (fraction / (1 - fraction)) ** (1 / temperature)
    assert up == pytest.approx(odds / (1 + odds), abs=0.01)
    assert torch.equal(rounding(v), rounding(v))  # one draw for all of a step
    assert rounding(v).min() >= 5 and rounding(v).max() <= 6


@each_model
def test_latents_are_rounded_where_coding_rounds_them(name):
    """As straight-through steps do: around means that follow from rounded latents."""
    model = codec(name)
    latents = search.analysis(model, pixels_of(64, 128))
    with torch.no_grad():
        y_hat, _ = model.likelihoods(latents, torch.round)
        expected, _ = model.likelihoods(latents, "ste")
    torch.testing.assert_close(y_hat, expected, atol=1e-4, rtol=0)


def test_refusals_are_sentences():
    x = pixels_of(64, 64)
    other = make("Factorized").freeze()
    for point in (None, OperatingPoint("Factorized", 8.73, "low", N, M, "ms-ssim")):
        other.point = point
        with pytest.raises(UsageError, match="mean square error"):
            search.compress(other, x, 1)
    for effort in (0, -1):
        with pytest.raises(UsageError, match=f"not {effort}"):
            search.compress(codec("Factorized"), x, effort)
    with pytest.raises(ValueError, match="one image at a time"):
        search.compress(codec("Factorized"), x.repeat(2, 1, 1, 1), 1)
    with pytest.raises(ValueError, match="NaN"):
        search.compress(codec("Factorized"), x * torch.nan, 1)
