"""Trained weights on real photographs: file sizes against the float estimates."""

from __future__ import annotations

import pytest
import torch

import models
from benchmarks.integer_rate import bits_of
from evaluation.points import likelihood_bits
from models import checkpoint
from models.base import pad
from models.datasets import sample_photographs
from models.images import to_tensor

# The joint model's forward pass cannot know the means that the coded context was rounded
# around (see its docstring); it is held to the float likelihoods of what was coded instead.
ONE_PASS = [name for name in models.MODELS if not name.startswith("Joint")]


# A symbol outside its table is followed by its value, which the estimate, with likelihoods bounded
# below, knows nothing of: these bits are counted apart.


@pytest.fixture(scope="module")
def photographs() -> list[torch.Tensor]:
    """Two of the built-in photographs, cropped to odd sizes: (1, 3, H, W) in [0, 1]."""
    found = dict(sample_photographs())
    return [to_tensor(found["coffee"][:301, :403]), to_tensor(found["astronaut"][:256, :389])]


def trained(name: str):
    return checkpoint.load(checkpoint.find(name)[0])


@pytest.mark.parametrize("name", ONE_PASS)
@torch.no_grad()
def test_size_of_the_file_is_the_estimate_of_forward(name, photographs):
    model = trained(name)
    for x in photographs:
        estimate = likelihood_bits(model(pad(x, model.downsampling), quantization="round")) / 8
        size = len(model.compress(x)[0]) - bits_of(model, x)["escapes"] / 8
        assert abs(size - estimate) <= 0.01 * estimate + 64


@pytest.mark.parametrize("name", list(models.MODELS))
def test_streams_cost_what_float_likelihoods_say(name, photographs):
    model = trained(name)
    for x in photographs:
        bits = bits_of(model, x)
        known = bits["streams"] - bits["escapes"]
        assert known == pytest.approx(bits["float"], rel=0.01, abs=64)
        assert bits["streams"] == pytest.approx(bits["tables"], rel=0.001, abs=96)
