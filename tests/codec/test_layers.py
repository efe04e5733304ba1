"""The building blocks against CompressAI's, closed forms and hand-drawn masks."""

import shutil

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
    conv,
    deconv,
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


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_equals_compressai(inverse):
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


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_without_gradient_and_in_channels_last_is_the_same(inverse):
    ours, _ = gdn_pair(inverse)
    x = torch.randn(2, 6, 5, 7)
    expected = ours(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours(x.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_gradient_is_that_of_finite_differences(inverse, frozen):
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    beta = (torch.rand(4, dtype=torch.float64) + 0.5).requires_grad_(not frozen)
    gamma = torch.rand(4, 4, dtype=torch.float64).requires_grad_(not frozen)
    assert torch.autograd.gradcheck(
        lambda *inputs: _Normalise.apply(*inputs, inverse), (x, beta, gamma)
    )


def test_gdn_by_hand():
    layer = GDN(2)
    with torch.no_grad():
        layer.beta.copy_(torch.tensor([1.0, 2.0]).sqrt())
        layer.gamma.copy_(torch.tensor([[0.0, 3.0], [0.5, 0.0]]).sqrt())
    x = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    y = layer(x).flatten()
    torch.testing.assert_close(y, torch.tensor([2 / (1 + 3) ** 0.5, -1 / (2 + 2) ** 0.5]))


def test_gdn_computes_in_single_precision_under_autocast():
    ours, _ = gdn_pair(False)
    x = torch.randn(1, 6, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(x.bfloat16())
    assert y.dtype == torch.bfloat16  # rounded once, at the end, for the next convolution
    torch.testing.assert_close(y, ours(x.bfloat16().float()).bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_in_blocks_is_gdn_in_one(inverse, monkeypatch):
    ours, _ = gdn_pair(inverse)
    x, upstream = torch.randn(2, 6, 5, 7), torch.randn(2, 6, 5, 7)
    results = []
    for size in (1 << 20, 4 * 6 * 3):  # all 70 pixels at once; 3 and, at the end, 1
        monkeypatch.setattr(gdn, "BLOCK_BYTES", size // torch.get_num_threads())
        leaf = x.clone().requires_grad_()
        ours.zero_grad()
        y = ours(leaf)
        y.backward(upstream)
        results.append((y.detach(), leaf.grad, ours.beta.grad, ours.gamma.grad))
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("inverse", [False, True])
def test_compiled_gdn_is_the_same(inverse):
    ours, _ = gdn_pair(inverse)
    x = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(3), requires_grad=True)
    wanted = torch.autograd.grad(ours(x).square().sum(), (x, ours.beta, ours.gamma))
    compiled = torch.compile(ours)
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


@pytest.mark.parametrize("build,mask", CONTEXTS)
def test_masked_convolution_never_changes_its_weight(build, mask):
    layer = build(3, 4)
    before = layer.weight.detach().clone()
    layer(torch.randn(1, 3, 6, 6)).sum().backward()
    assert torch.equal(layer.weight, before)
    hidden = torch.tensor(mask) == 0
    assert (layer.weight.grad[:, :, hidden] == 0).all()
    assert (layer.weight.grad[:, :, ~hidden] != 0).any()
    assert "mask" not in layer.state_dict()  # it is derived from the model, not learned


@pytest.mark.parametrize("build,mask", CONTEXTS)
def test_context_has_no_jacobian_outside_its_mask(build, mask):
    height, width = 6, 7
    layer = build(2, 3)
    jacobian = torch.autograd.functional.jacobian(layer, torch.randn(1, 2, height, width))
    influence = jacobian[0, :, :, :, 0].abs().sum((0, 3))  # (row, column, row', column')
    expected = torch.zeros(height, width, height, width, dtype=torch.bool)
    for row in range(height):
        for column in range(width):
            for down in range(-2, 3):
                for right in range(-2, 3):
                    r, c = row + down, column + right
                    if 0 <= r < height and 0 <= c < width:
                        expected[row, column, r, c] = bool(mask[down + 2][right + 2])
    assert torch.equal(influence != 0, expected)


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


@pytest.mark.parametrize("kernel,stride", [(5, 2), (3, 1), (1, 1)])
def test_convolutions_divide_and_multiply_sizes_by_their_stride(kernel, stride):
    x = torch.randn(1, 2, 8, 12)
    down = conv(2, 3, kernel, stride)(x)
    assert down.shape == (1, 3, 8 // stride, 12 // stride)
    assert deconv(3, 2, kernel, stride)(down).shape == x.shape


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


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="noise, round or ste"):
        Quantised(torch.zeros(3), "floor")
