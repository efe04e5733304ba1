"""The building blocks against CompressAI's, closed forms and hand-drawn masks."""

import pytest
import torch
import torch.nn.functional as F

from evaluation.reference import import_compressai
from models.layers import (
    GDN,
    CausalConv2d,
    MaskedConv2d,
    Quantised,
    causal_mask,
    checkerboard_mask,
    gdn,
    lower_bound,
    parity,
)
from models.layers.gdn import _Normalise

CAUSAL = [
    [1, 1, 1, 1, 1],
    [1, 1, 1, 1, 1],
    [1, 1, 0, 0, 0],
    [0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0],
]
CHECKERBOARD = [
    [0, 1, 0, 1, 0],
    [1, 0, 1, 0, 1],
    [0, 1, 0, 1, 0],
    [1, 0, 1, 0, 1],
    [0, 1, 0, 1, 0],
]


def gdn_pair(inverse):
    """Ours and CompressAI's with the same random parameters, some below their bounds."""
    ours = GDN(6, inverse)
    with torch.no_grad():
        ours.beta.add_(torch.rand(6))
        ours.gamma.add_(0.3 * torch.rand(6, 6))
        ours.beta[0] = -0.5  # bounded: forward as at the bound, gradient only if it helps
        ours.gamma[1, 2:4] = -0.1
    theirs = import_compressai().layers.GDN(6, inverse)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    return ours, theirs


@pytest.mark.parametrize("block_bytes", [1 << 20, 4 * 6 * 3], ids=["at once", "in blocks"])
@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_equals_compressai(inverse, block_bytes, monkeypatch):
    """In blocks: of 3 of the 70 pixels and, at the end, 1. Without gradient and in channels last,
    the same."""
    monkeypatch.setattr(gdn, "BLOCK_BYTES", block_bytes // torch.get_num_threads())
    ours, theirs = gdn_pair(inverse)
    x = torch.randn(2, 6, 5, 7) * 2
    upstream = torch.randn(2, 6, 5, 7)
    results = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        y.backward(upstream)
        results.append((y.detach(), leaf.grad, layer.beta.grad, layer.gamma.grad))
    for ours_value, theirs_value in zip(*results, strict=True):
        torch.testing.assert_close(ours_value, theirs_value, rtol=2e-5, atol=2e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), results[0][0])
    torch.testing.assert_close(
        ours(x.contiguous(memory_format=torch.channels_last)).detach(), results[0][0]
    )


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_gradient_is_that_of_finite_differences_where_the_layer_is_frozen(inverse):
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    beta, gamma = torch.rand(4, dtype=torch.float64) + 0.5, torch.rand(4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: _Normalise.apply(x, beta, gamma, inverse), x)


def test_gdn_computes_in_single_precision_under_autocast():
    ours, _ = gdn_pair(False)
    x = torch.randn(1, 6, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(x.bfloat16())
    assert y.dtype == torch.bfloat16  # rounded once, at the end, for the next convolution
    torch.testing.assert_close(y, ours(x.bfloat16().float()).bfloat16(), rtol=0, atol=0)


def test_compiled_gdn_is_the_same():
    ours, _ = gdn_pair(False)
    x = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(3), requires_grad=True)
    wanted = torch.autograd.grad(ours(x).square().sum(), (x, ours.beta, ours.gamma))
    compiled = torch.compile(ours, backend="aot_eager")  # which needs no C++ compiler
    assert torch.allclose(compiled(x), ours(x), rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(compiled(x).square().sum(), (x, ours.beta, ours.gamma))
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_lower_bound_passes_only_the_gradient_that_helps():
    x = torch.tensor([0.5, 0.5, 2.0, 2.0, 1.0, 1.0], requires_grad=True)
    y = lower_bound(x, 1.0)
    assert y.tolist() == [1, 1, 2, 2, 1, 1]
    y.backward(torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, -3.0]))
    # Below the bound, a negative gradient raises x in a descent step and may pass.
    assert x.grad.tolist() == [0, -3, 3, -3, 3, -3]


def test_masks_are_those_of_the_papers():
    assert causal_mask(5).tolist() == CAUSAL
    assert checkerboard_mask(5).tolist() == CHECKERBOARD
    assert causal_mask(3).tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert checkerboard_mask(3).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert parity(2, 3).tolist() == [[0, 1, 0], [1, 0, 1]]


CONTEXTS = [
    (lambda inputs, outputs: MaskedConv2d(inputs, outputs, causal_mask()), CAUSAL),
    (lambda inputs, outputs: MaskedConv2d(inputs, outputs, checkerboard_mask()), CHECKERBOARD),
    (CausalConv2d, CAUSAL),
]


@pytest.mark.parametrize("height,width", [(6, 5), (1, 4), (3, 1)])
@pytest.mark.parametrize("build,mask", CONTEXTS)
def test_masked_convolution_equals_a_convolution_with_zeroed_taps(build, mask, height, width):
    layer = build(3, 4).double()
    x = torch.randn(2, 3, height, width, dtype=torch.double, requires_grad=True)
    zeroed = layer.weight * torch.tensor(mask)
    expected = F.conv2d(x, zeroed, layer.bias, padding=2)
    torch.testing.assert_close(layer(x), expected)
    weights = x, layer.weight, layer.bias
    grads = (torch.autograd.grad(y.square().sum(), weights) for y in (layer(x), expected))
    torch.testing.assert_close(*grads)


def test_rounding_is_around_the_mean():
    x, means = torch.randn(1000) * 5, torch.rand(1000)
    quantised = Quantised(x, "round")
    x_hat = quantised.hat(means)
    steps = x_hat - means
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-5)
    assert ((x_hat - x).abs() <= 0.5 + 1e-5).all()
    assert torch.equal(quantised.measured(means), x_hat)
    assert torch.equal(quantised.hat(), x.round())


def test_noise_is_uniform_drawn_once_and_needs_no_mean():
    x = torch.linspace(-3, 3, 20001)
    quantised = Quantised(x, "noise")
    assert torch.equal(quantised.hat(), quantised.measured(torch.rand(20001)))
    noise = quantised.hat() - x
    assert 0.49 < noise.abs().max() <= 0.5
    assert abs(noise.mean()) < 0.01 and abs(noise.var() - 1 / 12) < 0.002
    assert abs(torch.corrcoef(torch.stack([x, noise]))[0, 1]) < 0.03


def test_straight_through_rounds_for_the_networks_and_adds_noise_for_the_rate():
    x = (torch.randn(1000) * 5).requires_grad_()
    means = torch.rand(1000, requires_grad=True)
    quantised = Quantised(x, "ste")
    expected = Quantised(x, "round").hat(means)
    torch.testing.assert_close(quantised.hat(means), expected)
    noise = quantised.measured(means) - x
    assert 0.45 < noise.abs().max() <= 0.5 and abs(noise.mean()) < 0.05
    (quantised.hat(means) * 3).sum().backward()
    assert (x.grad == 3).all() and means.grad is None


def test_quantisation_is_in_single_precision():
    """At 50, bfloat16 has steps of 1/4: neither noise nor half a step would survive."""
    x = torch.full((1000,), 50.25).bfloat16()
    for mode in ("noise", "round", "ste"):
        assert Quantised(x, mode).hat(0.3).dtype == torch.float32
    assert len((Quantised(x, "noise").hat() - 50.25).unique()) > 900
