"""Integer products: Python's own integers, whichever way the CPU computes them."""

import numpy as np
import pytest
import torch

from models.coding import products
from models.coding.products import LARGEST, LONGEST, IntegerMatrix

LARGEST_WEIGHT, LARGEST_INPUT = 1 << 15, 1 << 23


def integers(seed, shape, *, largest, extremes=()):
    """Random integers in float64 with the extremes, of both signs, sprinkled over them."""
    generator = np.random.default_rng(seed)
    values = generator.integers(-largest, largest + 1, shape)
    for value in (v for e in extremes for v in (e, -e)):
        values.flat[generator.integers(values.size, size=max(values.size // 20, 1))] = value
    return torch.from_numpy(values).double()


def python_product(rows, weight):
    return rows.numpy().astype(object) @ weight.numpy().astype(object).T


def by_bytes(patch):
    """Byte products on any CPU: their sums in float64, which holds them."""
    patch.setattr(products, "has_bytes", lambda: True)
    patch.setattr(torch, "_int_mm", lambda a, b: (a.double() @ b.double()).int())


@pytest.fixture(params=["as the CPU has it", "float64", "bytes"])
def way(request, monkeypatch):
    if request.param == "float64":
        monkeypatch.setattr(products, "has_bytes", lambda: False)
    if request.param == "bytes":
        by_bytes(monkeypatch)


@pytest.mark.parametrize("largest", [1, *LARGEST, *(r + 1 for r in LARGEST), LARGEST_INPUT])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 5), (20, 300, 33)])
def test_products_equal_pythons_integers(shape, largest, way):
    n, terms, outputs = shape
    weight = integers(1, (outputs, terms), largest=LARGEST_WEIGHT, extremes=(1 << 15, LARGEST[1]))
    rows = integers(2, (n, terms), largest=largest, extremes=(largest,))
    units = 0.5 ** (torch.arange(outputs) % 9 - 4).double()
    result = IntegerMatrix(weight, units)(rows)
    assert result.dtype == torch.float64
    assert np.array_equal((result / units).numpy().astype(object), python_product(rows, weight))


@pytest.mark.parametrize("signs", [(1, 1), (-1, -1), (1, -1), (-1, 1)])
def test_the_largest_sums_are_exact(signs, way):
    """All factors at their limits: what saturating instructions get wrong."""
    weight = torch.full((2, LONGEST), float(LARGEST[1] * signs[0]), dtype=torch.float64)
    rows = torch.full((3, LONGEST), float(LARGEST[2] * signs[1]), dtype=torch.float64)
    expected = signs[0] * signs[1] * LARGEST[1] * LARGEST[2] * LONGEST
    assert (IntegerMatrix(weight, torch.ones(2))(rows) == expected).all()
