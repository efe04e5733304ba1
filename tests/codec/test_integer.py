"""Integer networks: exact against Python's integers, close to the float networks."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from models.coding import integer, products
from models.coding.integer import (
    EXACT,
    FRACTION_BITS,
    GRID_BITS,
    LIMIT,
    IntegerContext,
    IntegerNetwork,
)
from models.errors import FreezeError
from models.layers import conv, deconv
from tests.helpers import uniform

# A test of its own for each network that a model freezes.
NETWORKS = {
    "relu": lambda: nn.Sequential(
        deconv(4, 4), nn.ReLU(), deconv(4, 5), nn.ReLU(), conv(5, 6, 3, 1), nn.ReLU()
    ),
    "leaky relu": lambda: nn.Sequential(
        deconv(4, 6), nn.LeakyReLU(), deconv(6, 9), nn.LeakyReLU(), conv(9, 12, 3, 1)
    ),
    "strided": lambda: nn.Sequential(conv(4, 5), nn.LeakyReLU(), conv(5, 3, 1, 1)),
}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def network(request):
    torch.manual_seed(1)
    made = request.param()
    with torch.no_grad():  # more spread than the default initialisation gives
        for parameter in made.parameters():
            parameter.mul_(2)
    return made


def inputs(batch=2, height=5, width=6, reach=12, channels=4):
    """Integers on the grid of 1/64, as decoded latents are."""
    values = uniform([1], batch, channels, height, width, low=-64 * reach, high=64 * reach)
    return values.round()


def python_layer(weights, bias, shift):
    """floor((bias + sum w a) / 2**shift), clamped, in arbitrary precision."""
    total = int(bias) + sum(int(w) * int(a) for w, a in weights)
    return max(
        -int(LIMIT), min(int(LIMIT), math.floor(Fraction(total) / Fraction(2) ** int(shift)))
    )


def python_leaky(x):
    return x if x >= 0 else math.floor(Fraction(x * 10486, 2**20))


def python_convolution(x, module, weight, bias, shift):
    """Of x (C, H, W), plain or transposed: every pair of input and output that a tap joins."""
    kernel, stride, pad = module.kernel_size[0], module.stride[0], module.kernel_size[0] // 2
    up, down, sign = (stride, 1, 1) if module.transposed else (1, stride, -1)
    taps = weight.reshape(len(bias), len(x), kernel, kernel)
    out = np.empty((len(bias), *(-(-side * up // down) for side in x.shape[1:])), dtype=object)
    for o, row, column in np.ndindex(out.shape):
        pairs = []
        for c, r, s in np.ndindex(x.shape):
            i = sign * (row * down - r * up) + pad
            j = sign * (column * down - s * up) + pad
            if 0 <= i < kernel and 0 <= j < kernel:
                pairs.append((taps[o, c, i, j], x[c, r, s]))
        out[o, row, column] = python_layer(pairs, bias[o], shift[o])
    return out


def layers_of(frozen):
    """(weight, bias, shift) of each layer, as they enter the digest."""
    parts = [part.numpy() for part in frozen.integers()]
    return [parts[k : k + 3] for k in range(0, len(parts), 3)]


def python_network(network, frozen, x):
    x = x.numpy().astype(object)
    integers = iter(layers_of(frozen))
    for module in network:
        if isinstance(module, nn.ReLU):
            x = np.maximum(x, 0)
        elif isinstance(module, nn.LeakyReLU):
            x = np.vectorize(python_leaky, otypes=[object])(x)
        else:
            x = python_convolution(x, module, *next(integers))
    return x.astype(np.float64)


@pytest.mark.parametrize("extreme", [False, True])
def test_network_equals_pythons_integers(network, extreme):
    frozen = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)
    x = inputs(1, 2, 3)
    x = torch.where(x > 0, LIMIT, -LIMIT).double() if extreme else x
    expected = python_network(network, frozen, x[0])
    assert np.array_equal(frozen(x)[0].numpy(), expected)
    assert len(np.unique(expected)) > 5 or extreme


def test_partial_sums_at_the_limit_stay_exact():
    """Sums that climb as high as inputs allow and come back down to their low bits."""
    channels = 192
    layer = nn.Conv2d(channels, 1, 5, padding=2)
    with torch.no_grad():
        layer.weight.fill_(0.999)
        layer.weight[:, channels // 2 :] *= -1
        layer.bias.fill_(0.3)
    network = nn.Sequential(layer)
    x = torch.full((1, channels, 5, 5), LIMIT, dtype=torch.float64)
    x[:, channels // 2 :] -= 1
    frozen = IntegerNetwork(network, FRACTION_BITS, FRACTION_BITS)
    weight, bias, shift = layers_of(frozen)[0]
    middle = python_layer(zip(weight[0], x.flatten().numpy(), strict=True), bias[0], shift[0])
    assert 1000 < middle < LIMIT / 2  # not hidden by the clamp
    assert frozen(x)[0, 0, 2, 2].item() == middle
    # And where everything adds up, to the clamp.
    aligned = torch.where(layer.weight > 0, LIMIT, -LIMIT).double()
    assert frozen(aligned)[0, 0, 2, 2].item() == LIMIT
    assert frozen(-aligned)[0, 0, 2, 2].item() == -LIMIT


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-3, 1.0, 1e4, 1e12, 1e30])
@pytest.mark.parametrize("bias", [0.0, 1e-3, 100.0, 1e9])
def test_no_weights_break_the_proven_bound(size, bias):
    network = nn.Sequential(conv(20, 3), nn.ReLU(), deconv(3, 4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(size if parameter.ndim == 4 else bias)
    for weight, offset, shift in layers_of(IntegerNetwork(network, GRID_BITS, FRACTION_BITS)):
        bound = np.abs(offset) + np.abs(weight).sum(1) * LIMIT
        assert (bound < EXACT).all()
        for part in (weight, offset, shift):
            assert np.array_equal(part, np.round(part))


def test_network_is_close_to_its_floats(network):
    x = inputs()
    frozen = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)
    with torch.no_grad():
        expected = network(x.float() / 64)
    error = frozen(x).float() / 2**FRACTION_BITS - expected
    assert error.abs().max() < 1e-3 + 1e-3 * expected.abs().max()
    assert expected.std() > 0.1


def test_outputs_may_have_bits_of_their_own(network):
    count = network[-1].out_channels if hasattr(network[-1], "weight") else network[-2].out_channels
    bits = torch.where(torch.arange(count) % 2 == 0, FRACTION_BITS, GRID_BITS)
    x = inputs()
    fine = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)(x)
    mixed = IntegerNetwork(network, GRID_BITS, bits)(x)
    assert torch.equal(mixed[:, ::2], fine[:, ::2])
    coarse = fine[:, 1::2] / 2 ** (FRACTION_BITS - GRID_BITS)
    assert (mixed[:, 1::2] - coarse).abs().max() <= 0.51


def variants(compute, monkeypatch):
    """Results under 2 threads, in float64 alone, and in the smallest strips and chunks."""
    torch.set_num_threads(2)
    yield compute()
    torch.set_num_threads(1)
    with monkeypatch.context() as patch:
        patch.setattr(products, "has_bytes", lambda: False)
        yield compute()
    monkeypatch.setattr(integer, "STRIP_BYTES", 1)
    monkeypatch.setattr(IntegerContext, "CHUNK", 5)
    yield compute()
    monkeypatch.setattr(integer, "STRIP_BYTES", 4000)
    monkeypatch.setattr(IntegerContext, "CHUNK", 17)
    yield compute()


def test_network_does_not_depend_on_threads_strips_or_batch(network, monkeypatch):
    frozen = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)
    x = inputs(3, 9, 7)
    torch.set_num_threads(1)
    expected = frozen(x)
    for result in variants(lambda: frozen(x), monkeypatch):
        assert torch.equal(result, expected)
    for k in range(3):
        assert torch.equal(frozen(x[k : k + 1])[0], expected[k])


def test_order_of_summation_does_not_matter(network):
    x = inputs()
    expected = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)(x)
    order = torch.tensor([2, 0, 3, 1])
    first = network[0]
    dimension = 1 if isinstance(first, nn.Conv2d) else 0
    with torch.no_grad():
        first.weight.copy_(first.weight.index_select(dimension, order))
    permuted = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)
    assert torch.equal(permuted(x[:, order]), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_broken_weights_are_refused(value, parameter):
    network = NETWORKS["relu"]()
    with torch.no_grad():
        getattr(network[2], parameter).view(-1)[0] = value
    with pytest.raises(FreezeError, match="NaN or infinity"):
        IntegerNetwork(network, GRID_BITS, FRACTION_BITS)


def test_unknown_layers_are_refused():
    with pytest.raises(FreezeError, match="Sigmoid"):
        IntegerNetwork(nn.Sequential(conv(3, 4), nn.Sigmoid()), GRID_BITS, FRACTION_BITS)
    with pytest.raises(FreezeError, match="slope"):
        steep = nn.Sequential(conv(3, 4), nn.LeakyReLU(0.2))
        IntegerNetwork(steep, GRID_BITS, FRACTION_BITS)


@pytest.mark.parametrize("bias", [1e9, 1e20, 1e38])
def test_huge_biases_saturate_or_are_refused(bias):
    network = nn.Sequential(conv(3, 4))
    with torch.no_grad():
        network[0].bias.fill_(bias)
    try:
        frozen = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)
    except FreezeError as error:
        assert "too large" in str(error)
    else:
        assert (frozen(inputs(channels=3)) == LIMIT).all()
