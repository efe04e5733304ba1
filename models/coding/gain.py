"""Gains: any rate from one checkpoint.

A file of gain g holds g * y in place of y: steps of 1 / g. The gain is an integer of the file, in
units of 1/4096, and all that decides what is coded follows from it in integers (units = 4096 g):

    means      floor((mean * units + 2048) / 4096)          in 1/64, as before
    tables     the number of thresholds t with scale * units > t * 4096
    y_hat      floor((coded * 8192 + units) / (2 * units))  back in 1/64, for context and synthesis

z is not scaled. Each quotient is of integers whose sum is below 2**53 in size: then the floor of
the quotient in float64 is that of the true one. (A quotient that is no integer is 1 / denominator
away from the next, which is more than half of the last bit there.) Symbols may be larger, but what
follows from those is clamped to LIMIT in any case.
"""

from __future__ import annotations

from torch import Tensor

from models.coding.integer import LIMIT
from models.entropy.tables import GRID

UNIT = 4096
LEAST, MOST = 1 / 16, 16.0


class Gain:
    """A number from 1/16 to 16, rounded to a multiple of 1/4096. ValueError for another."""

    def __init__(self, value: float = 1.0):
        if not LEAST <= value <= MOST:
            raise ValueError(f"A gain is a number from {LEAST:g} to {MOST:g}, not {value:g}.")
        self.units = round(value * UNIT)

    @property
    def value(self) -> float:
        """g, exact."""
        return self.units / UNIT

    def means(self, means: Tensor) -> Tensor:
        """Means of y, any shape, to those of g * y; integers in units of 1/64."""
        if self.units == UNIT:
            return means
        return (means * self.units).add_(UNIT // 2).div_(UNIT).floor_()

    def thresholds(self, thresholds: Tensor) -> Tensor:
        """Of scales of g * y to those of scales of y, any shape; integers of any one unit.

        scale * units > t * 4096 for the same integer scales as scale > floor(t * 4096 / units).
        """
        return (thresholds * UNIT / self.units).floor_()

    def symbols(self, y: Tensor, means: Tensor) -> Tensor:
        """y to integers, float64 like y: g * y less `means`, those of g * y, rounded."""
        return y.double().mul_(self.value).sub_(means / GRID).round_()

    def y_hat(self, symbols: Tensor, means: Tensor) -> Tensor:
        """Symbols around `means`, those of g * y, to y_hat in units of 1/64, like the symbols.

        The clamp only acts on values that no image gives; it is what bounds the integer networks'
        input, so it is part of the format.
        """
        coded = (symbols * GRID).add_(means)
        if self.units != UNIT:
            coded.mul_(2 * UNIT).add_(self.units).div_(2 * self.units).floor_()
        return coded.clamp_(-LIMIT, LIMIT)


ONE = Gain()
