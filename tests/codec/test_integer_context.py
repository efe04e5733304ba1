"""The integer context network: exact against Python's integers, close to its floats."""

import pytest
import torch
from torch import nn

from models.coding.integer import FRACTION_BITS, LIMIT, IntegerContext
from models.coding.loop import cells
from models.coding.orders import REACH
from models.layers import MaskedConv2d, causal_mask, checkerboard_mask, conv
from tests.codec.test_integer import inputs, layers_of, python_layer, python_leaky, variants
from tests.helpers import uniform

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
