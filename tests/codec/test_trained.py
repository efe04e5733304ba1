"""Trained weights on real photographs: file sizes against the float estimates."""

from __future__ import annotations

import pytest
import torch

import models
from evaluation.bits import Meter
from evaluation.points import likelihood_bits
from models import checkpoint
from models.base import pad
from models.coding.range_coder import escape_bits
from models.datasets import sample_photographs
from models.entropy.gaussian import gaussian_likelihood
from models.images import to_tensor

# The joint model's forward pass cannot know the means that the coded context was rounded
# around (see its docstring); it is held to the float likelihoods of what was coded instead.
ONE_PASS = [name for name in models.MODELS if not name.startswith("Joint")]


class Counter(Meter):
    """Counts apart what symbols outside their tables cost more: their values, which the float
    likelihoods, bounded below, know nothing of."""

    escapes = 0.0

    def code(self, symbols, indexes):
        rows, values = indexes.numpy(), symbols.numpy()
        slots = values - self.first[rows]
        outside = values[(slots < 0) | (slots >= self.escape[rows])]
        self.escapes += escape_bits(outside).sum()
        return super().code(symbols, indexes)


@torch.no_grad()
def bits_of(model, x: torch.Tensor) -> dict[str, float]:
    """Of an image x (1, 3, H, W): bits of the streams, of all symbols under the tables that code
    them, of the escapes among these, and of the same symbols under float networks."""
    latents = model.analysis(pad(x, model.downsampling))
    frozen = model.frozen
    counters = {name: Counter(frozen.tables[name]) for name in model.streams}
    y_hat = model.code(counters, latents, {name: v.shape for name, v in latents.items()})
    density = model.entropy_bottleneck
    if "z" in latents:
        offsets = frozen.offsets["z"].view(1, -1, 1, 1) / 64
        z_hat = (torch.round(latents["z"].double() - offsets) + offsets).float()
        psi = model.h_s(z_hat)
        contextual = hasattr(model, "context_prediction")
        params = model.parameters_given(psi, y_hat) if contextual else (psi,)
        likelihoods = density.likelihood(z_hat), gaussian_likelihood(y_hat, *params)
    else:
        likelihoods = (density.likelihood(y_hat),)
    return {
        "streams": 8 * sum(len(stream) for (stream,) in model.encode(latents)),
        "tables": sum(step.sum() for counter in counters.values() for step in counter.steps),
        "escapes": sum(counter.escapes for counter in counters.values()),
        "float": -sum(p.double().log2().sum().item() for p in likelihoods),
    }


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """One of the built-in photographs, cropped to an odd size: (1, 3, H, W) in [0, 1]."""
    return to_tensor(dict(sample_photographs())["astronaut"][:256, :389])


@pytest.mark.parametrize("name", list(models.MODELS))
@torch.no_grad()
def test_streams_cost_what_float_likelihoods_say(name, x):
    model = checkpoint.load(checkpoint.find(name)[0])
    bits = bits_of(model, x)
    known = bits["streams"] - bits["escapes"]
    assert known == pytest.approx(bits["float"], rel=0.01, abs=64)
    assert bits["streams"] == pytest.approx(bits["tables"], rel=0.001, abs=96)
    if name in ONE_PASS:
        estimate = likelihood_bits(model(pad(x, model.downsampling), quantization="round")) / 8
        size = len(model.compress(x)[0]) - bits["escapes"] / 8
        assert abs(size - estimate) <= 0.01 * estimate + 64
