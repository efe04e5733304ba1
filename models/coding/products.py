"""Products of integer matrices, exact on every machine, on the quickest way that the CPU offers.

In float64, products and sums are exact as long as they stay below 2**53. Where a CPU multiplies
bytes (VNNI: 8-bit factors, 32-bit sums), both factors are split into digits of base 256 and
the products of digits, exact as well, are put together: the same integers with a quarter of the
memory traffic, which is what the small products of a wavefront are bound by.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

LIMIT = float(1 << 23)  # activations are clamped to [-LIMIT, LIMIT]
EXACT = float(1 << 53)
BASE = 256
DIGIT = 127  # the largest digit; the smallest is -128
LARGEST = (DIGIT, DIGIT * (1 + BASE), DIGIT * (1 + BASE + BASE**2))  # of one, two, three digits
LONGEST = 1 << 14  # terms in a sum: 2**14 * 2**14 fits 32 bits, and 2**16 times that 53 bits

F_2_3 = (  # the transforms of inputs, weights (twice the usual) and outputs
    [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    [[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]],
    [[1, 1, 1, 0], [0, 1, -1, -1]],
)


@cache
def has_bytes() -> bool:
    """Whether this CPU has byte products that are exact.

    Older instructions add two products in 16 bits and saturate there, so the largest
    products of all are looked at too.
    """
    if not torch.cpu._is_vnni_supported():
        return False
    low, high = torch.full((32, 256), -128, dtype=torch.int8), torch.full((256, 32), 127).char()
    return all(
        bool((torch._int_mm(a, b) == int(a[0, 0]) * int(b[0, 0]) * 256).all())
        for a in (low, -(low + 1))
        for b in (high, -(high + 1))
    )


class IntegerMatrix:
    """Integers (out, K), at most 2**15 in size, to be multiplied with integers up to 2**23.

    Results are in the given units, (out,), powers of two: exact, and a pass less for the caller.
    The caller sees to it that sums of integers stay below 2**53.
    """

    def __init__(self, weight: Tensor, units: Tensor):
        self.weight = (weight * units[:, None]).contiguous()
        self.bytes: Tensor | None = None  # (K, 2 out): the low digits, then the high ones
        # Two digits reach further down than up: a row with a larger entry is kept negated.
        sign = torch.where(weight.amax(1) > LARGEST[1], -1.0, 1.0).double()
        self.units, signed = units * sign, weight * sign[:, None]
        low, high = _digits(signed, 2)
        fits = torch.equal(high.double() * BASE + low, signed)
        # With a single term torch 2.13 mistakes the layout and gives wrong numbers.
        if fits and 1 < weight.shape[1] <= LONGEST:
            self.bytes = torch.cat([low, high]).t()

    def to(self, device: torch.device | str) -> IntegerMatrix:
        """Move the integers; in place."""
        self.weight, self.units = self.weight.to(device), self.units.to(device)
        if self.bytes is not None:
            self.bytes = self.bytes.to(device)
        return self

    def split(self, values: Tensor) -> Tensor:
        """Integers in float64, any shape, as digits (count, ...) int8, lowest first, or as they are
        where there is no use for digits."""
        if self.bytes is None or values.device.type != "cpu" or not has_bytes():
            return values
        largest = torch.stack(values.aminmax()).abs().max() if values.numel() else 0
        for count, limit in enumerate(LARGEST, 1):
            if largest <= limit:
                return _digits(values, count)
        return values

    def __call__(self, rows: Tensor) -> Tensor:
        """Integers (n, K), or their digits (count, n, K), times the transpose: (n, out) float64."""
        digits = rows if rows.dtype == torch.int8 else self.split(rows)
        if digits.dtype == torch.float64:
            n = len(digits)
            if n > 2 and n % 4:  # on AVX2, 11 rows take MKL half as long again as 12
                digits = F.pad(digits, (0, 0, 0, -n % 4))
            return (digits @ self.weight.t())[:n]
        sums = torch._int_mm(digits.flatten(0, 1), self.bytes)
        low, high = sums.view(*digits.shape[:2], 2, -1).unbind(2)
        low[1:] += high[:-1]  # the same powers of the base; two sums of 2**28 at most
        total = high[-1].double()
        for part in reversed(low.unbind()):
            total = torch.add(part, total, alpha=BASE)
        return total.mul_(self.units)


class Winograd:
    """A 3x3 convolution of stride 1 in float64: 16 products for 2x2 outputs in place of 36.

    Winograd's F(2x2, 3x3), exact: with twice the usual transform of the weights all numbers are
    integers, and the sums are four times the outputs. `exact`: whether they stay below 2**53 for
    all inputs within LIMIT.
    """

    def __init__(self, matrix: IntegerMatrix):
        """matrix (out, 3 * 3 * C), by tap, then by channel."""
        device = matrix.weight.device
        sides = (torch.tensor(rows, device=device).double() for rows in F_2_3)
        self.tile, weight, self.output = (torch.kron(side, side) for side in sides)
        taps = matrix.weight.unflatten(1, (9, -1)).transpose(0, 1)  # (9, out, C)
        points = (weight @ taps.reshape(9, -1)).view(16, *taps.shape[1:])
        sums = self.output.abs() @ torch.linalg.vector_norm(points, 1, dim=2)
        self.exact = bool((sums / matrix.units.abs() * 4 * LIMIT < EXACT).all())
        self.points = points.div_(4).transpose(1, 2)

    def __call__(self, x: Tensor) -> Tensor:
        """Integers (B, H + 2, W + 2, C), H and W even, to (B, H, W, out)."""
        tiles = x.unfold(1, 4, 2).unfold(2, 4, 2).permute(4, 5, 0, 1, 2, 3)
        _, _, *size, channels = tiles.shape
        rows = (self.tile @ tiles.reshape(16, -1)).view(16, -1, channels)
        sums = self.output @ torch.bmm(rows, self.points).flatten(1)
        return sums.view(2, 2, *size, -1).permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2)


def _digits(values: Tensor, count: int) -> Tensor:
    """Balanced digits of base 256, in -128..127, lowest first: (count, ...) int8."""
    digits = torch.empty(count, *values.shape, dtype=torch.int8)
    rest = values.to(torch.int32)
    for digit in digits:
        digit.copy_(rest)  # keeps the lowest byte, as a signed number
        rest.add_(BASE // 2).bitwise_right_shift_(8)
    return digits
