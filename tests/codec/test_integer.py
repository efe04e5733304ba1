"""Integer networks: exact against Python's integers, close to the float networks."""

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


# Python's own integers ----------------------------------------------------------------------


def python_layer(weights, bias, shift):
    """floor((bias + sum w a) / 2**shift), clamped, in arbitrary precision."""
    total = int(bias) + sum(int(w) * int(a) for w, a in weights)
    return max(
        -int(LIMIT), min(int(LIMIT), math.floor(Fraction(total) / Fraction(2) ** int(shift)))
    )


def python_leaky(x):
    return x if x >= 0 else math.floor(Fraction(x * 10486, 2**20))


def python_conv(x, weight, bias, shift, kernel, stride):
    channels, height, width = x.shape
    taps = weight.reshape(len(bias), channels, kernel, kernel)
    pad = kernel // 2
    out = np.empty((len(bias), -(-height // stride), -(-width // stride)), dtype=object)
    for o, row, column in itertools.product(*map(range, out.shape)):
        pairs = []
        for c, i, j in itertools.product(range(channels), range(kernel), range(kernel)):
            r, s = row * stride + i - pad, column * stride + j - pad
            if 0 <= r < height and 0 <= s < width:
                pairs.append((taps[o, c, i, j], x[c, r, s]))
        out[o, row, column] = python_layer(pairs, bias[o], shift[o])
    return out


def python_deconv(x, weight, bias, shift, kernel, stride):
    channels, height, width = x.shape
    taps = weight.reshape(len(bias), channels, kernel, kernel)
    pad = kernel // 2
    out = np.empty((len(bias), height * stride, width * stride), dtype=object)
    for o, row, column in itertools.product(*map(range, out.shape)):
        pairs = []
        for c, r, s in itertools.product(range(channels), range(height), range(width)):
            i, j = row - r * stride + pad, column - s * stride + pad
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
            one = python_conv if isinstance(module, nn.Conv2d) else python_deconv
            x = one(x, *next(integers), module.kernel_size[0], module.stride[0])
    return x.astype(np.float64)


def test_network_equals_pythons_integers(network):
    frozen = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)
    x = inputs(1, 2, 3)
    expected = python_network(network, frozen, x[0])
    assert np.array_equal(frozen(x)[0].numpy(), expected)
    assert len(np.unique(expected)) > 5


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


def test_extreme_inputs_stay_in_range_through_a_network(network):
    frozen = IntegerNetwork(network, GRID_BITS, FRACTION_BITS)
    signs = torch.where(inputs() > 0, LIMIT, -LIMIT).double()
    out = frozen(signs)
    assert out.abs().max() <= LIMIT and torch.equal(out, out.round())
    x = signs[:1, :, :2, :3]
    assert np.array_equal(frozen(x)[0].numpy(), python_network(network, frozen, x[0]))


# Against floats ---------------------------------------------------------------------------


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


# The same integers however they are computed -------------------------------------------------


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


# The context model ------------------------------------------------------------------------

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
    at = positions, cells(positions, WIDTH), WIDTH + 2 * REACH
    return frozen.at(frozen.prepare(psi), grid, *at)


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
def test_context_equals_pythons_integers(mask):
    context, parameters = context_parts(mask)
    frozen = IntegerContext(context, parameters)
    psi, y = context_case(1)
    for scale in (1, LIMIT / y.abs().max()):  # usual and extreme latents
        grid = (y * scale).round()
        out = context_outputs(frozen, psi, grid)[0]
        (weight, bias, shift), *rest = layers_of(frozen)
        neighbours = (mask.nonzero() - 2).tolist()
        for position in (0, 3, 8, 13, 23):
            row, column = divmod(position, WIDTH)
            seen = []
            for down, right in neighbours:
                r, c = row + down, column + right
                inside = 0 <= r < HEIGHT and 0 <= c < WIDTH
                seen += grid[0, :, r, c].tolist() if inside else [0] * M
            features = [
                python_layer(zip(w, seen, strict=True), b, s)
                for w, b, s in zip(weight, bias, shift, strict=True)
            ]
            x = psi[0, :, row, column].tolist() + features
            for k, (w, b, s) in enumerate(rest):
                x = [python_leaky(a) for a in x] if k else x
                x = [
                    python_layer(zip(*p, strict=True), *q)
                    for *p, q in ((wo, x, (bo, so)) for wo, bo, so in zip(w, b, s, strict=True))
                ]
            assert out[position].tolist() == x


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


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_context_ignores_everything_outside_its_mask(mask):
    """What the decoder does not know yet cannot matter, also in integers."""
    frozen = IntegerContext(*context_parts(mask))
    psi, y = context_case(1)
    centre = torch.tensor([2 * WIDTH + 3])
    expected = context_outputs(frozen, psi, y, centre)
    for row, column in itertools.product(range(HEIGHT), range(WIDTH)):
        changed = y.clone()
        changed[:, :, row, column] += 640
        down, right = row - 2 + 2, column - 3 + 2
        inside = 0 <= down < 5 and 0 <= right < 5 and bool(mask[down, right])
        assert torch.equal(context_outputs(frozen, psi, changed, centre), expected) != inside


# Refusals ---------------------------------------------------------------------------------


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
