"""Integer networks: close to their floats, the same however they are cut, exact at their limits.

Bit for bit they are held to golden streams and to docs/decoder.py, which computes them its own way.
"""

import itertools
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
from models.coding.loop import cells
from models.coding.orders import REACH
from models.errors import FreezeError
from models.layers import MaskedConv2d, causal_mask, checkerboard_mask, conv, deconv
from tests.codec.test_products import by_bytes
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


def layers_of(frozen):
    """(weight, bias, shift) of each layer, as they enter the digest."""
    parts = [part.numpy() for part in frozen.integers()]
    return [parts[k : k + 3] for k in range(0, len(parts), 3)]


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
    factors = zip(weight[0], x.flatten().numpy(), strict=True)
    total = int(bias[0]) + sum(int(w) * int(a) for w, a in factors)
    middle = math.floor(Fraction(total) / Fraction(2) ** int(shift[0]))
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


def variants(compute, monkeypatch):
    """Results under 2 threads, in float64 and in bytes alone, and in the smallest blocks."""
    torch.set_num_threads(2)
    yield compute()
    torch.set_num_threads(1)
    for block, worth in ((512, 0), (1, 0), (17, integer.WORTH)):
        monkeypatch.setattr(integer, "BLOCK", block)
        monkeypatch.setattr(integer, "WORTH", worth)
        with monkeypatch.context() as patch:
            patch.setattr(products, "has_bytes", lambda: False)
            yield compute()
        with monkeypatch.context() as patch:
            by_bytes(patch)
            yield compute()


@pytest.mark.parametrize("extreme", [False, True])
def test_network_does_not_depend_on_threads_paths_or_batch(network, extreme, monkeypatch):
    frozen = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)
    x = inputs(3, 9, 7)
    x = x.sign() * LIMIT if extreme else x
    torch.set_num_threads(1)
    expected = frozen(x)
    for result in variants(lambda: frozen(x), monkeypatch):
        assert torch.equal(result, expected)
    for k in range(3):
        assert torch.equal(frozen(x[k : k + 1])[0], expected[k])


def test_where_winograd_might_not_be_exact_it_is_not_used(network, monkeypatch):
    monkeypatch.setattr(products, "has_bytes", lambda: False)
    x = inputs(1, 4, 5)
    expected = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)(x)
    monkeypatch.setattr(integer, "WORTH", 0)
    monkeypatch.setattr(products, "EXACT", 1.0)
    monkeypatch.setattr(products.Winograd, "__call__", None)
    assert torch.equal(IntegerNetwork(network, GRID_BITS, FRACTION_BITS)(x), expected)


def test_broken_weights_and_unknown_layers_are_refused():
    for value, name in itertools.product((math.nan, math.inf), ("weight", "bias")):
        network = NETWORKS["relu"]()
        with torch.no_grad():
            getattr(network[2], name).view(-1)[0] = value
        with pytest.raises(FreezeError, match="NaN or infinity"):
            IntegerNetwork(network, GRID_BITS, FRACTION_BITS)
    for layer, message in ((nn.Sigmoid(), "Sigmoid"), (nn.LeakyReLU(0.2), "slope")):
        with pytest.raises(FreezeError, match=message):
            IntegerNetwork(nn.Sequential(conv(3, 4), layer), GRID_BITS, FRACTION_BITS)


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


# The context network ---------------------------------------------------------------------------

M, HEIGHT, WIDTH = 3, 4, 6


def context_parts(mask):
    torch.manual_seed(2)
    context = MaskedConv2d(M, 2 * M, mask)
    parameters = nn.Sequential(
        conv(4 * M, 10, 1, 1), nn.LeakyReLU(), conv(10, 8, 1, 1), nn.LeakyReLU(), conv(8, 6, 1, 1)
    )
    return context, parameters


def padded_grid(y):
    """(B, M, H, W) integers to the loop's padded grid, (B, cells, M)."""
    padded = torch.nn.functional.pad(y, (REACH,) * 4)
    return padded.flatten(2).transpose(1, 2).contiguous()


def context_outputs(frozen, psi, y, positions=None):
    positions = torch.arange(HEIGHT * WIDTH) if positions is None else positions
    grid = None if y is None else padded_grid(y)
    taps = frozen.around(cells(positions, WIDTH), WIDTH + 2 * REACH)
    (older,) = [None] if y is None else frozen.ahead(grid, [taps])
    return frozen.at(frozen.prepare(psi), grid, positions, taps, older)


def context_case(batch=2):
    y = inputs(batch, HEIGHT, WIDTH, channels=M)
    psi = uniform([9], batch, 2 * M, HEIGHT, WIDTH, low=-(2**14), high=2**14).round()
    return psi, y


MASKS = {"causal": causal_mask(), "checkerboard": checkerboard_mask()}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("seen", [True, False])
def test_context_is_close_to_its_floats(mask, seen):
    context, parameters = context_parts(mask)
    frozen = IntegerContext(context, parameters)
    psi, y = context_case()
    with torch.no_grad():
        features = context(y.float() / 64) * seen
        expected = parameters(torch.cat([psi.float() / 2**FRACTION_BITS, features], 1))
    out = context_outputs(frozen, psi, y if seen else None)
    out = out.transpose(1, 2).unflatten(2, (HEIGHT, WIDTH)).float()
    scales, means = out[:, :M] / 2**FRACTION_BITS, out[:, M:] / 64
    assert (scales - expected[:, :M]).abs().max() < 3e-3
    assert (means - expected[:, M:]).abs().max() < 0.5 / 64 + 3e-3


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_context_does_not_depend_on_threads_chunks_batch_or_order(mask, monkeypatch):
    frozen = IntegerContext(*context_parts(mask))
    psi, y = context_case(3)
    torch.set_num_threads(1)
    expected = context_outputs(frozen, psi, y)
    for result in variants(lambda: context_outputs(frozen, psi, y), monkeypatch):
        assert torch.equal(result, expected)
    for k in range(3):
        alone = context_outputs(frozen, psi[k : k + 1], y[k : k + 1])
        assert torch.equal(alone[0], expected[k])
    shuffled = torch.tensor([5, 0, 23, 11, 12])
    assert torch.equal(context_outputs(frozen, psi, y, shuffled), expected[:, shuffled])
