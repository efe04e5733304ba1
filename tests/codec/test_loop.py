"""The coding orders, the loop that both directions share, and the priors that feed it."""

import numpy as np
import pytest
import torch

from models.coding.integer import FRACTION_BITS
from models.coding.loop import Coder, cells
from models.coding.orders import REACH, checkerboard, everywhere, raster, wavefront
from models.coding.priors import code_gaussian, code_with_context
from models.entropy.gaussian import scale_levels
from models.entropy.tables import GRID
from models.layers import causal_mask, checkerboard_mask
from tests.helpers import uniform

ORDERS = [everywhere, raster, wavefront, checkerboard]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 5), (8, 12)])
def test_every_position_once(order, size):
    steps = order(*size)
    assert all(len(step) for step in steps)
    assert torch.cat(steps).sort().values.tolist() == list(range(size[0] * size[1]))


def times(steps, height, width):
    time = torch.empty(height * width, dtype=torch.long)
    for k, step in enumerate(steps):
        time[step] = k
    return time.view(height, width)


def test_orders_of_a_small_grid_by_hand():
    assert times(everywhere(2, 3), 2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert times(raster(2, 3), 2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert times(checkerboard(3, 4), 3, 4).tolist() == [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]
    assert times(wavefront(3, 5), 3, 5).tolist() == [
        [0, 1, 2, 3, 4],
        [3, 4, 5, 6, 7],
        [6, 7, 8, 9, 10],
    ]
    assert len(wavefront(32, 48)) == 141  # of 1,536 positions
    # A grid of one column: no position of a step in between, and no empty step.
    assert times(wavefront(3, 1), 3, 1).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("size", [(6, 9), (9, 6), (1, 5), (7, 2)])
@pytest.mark.parametrize(
    "order,mask,first",  # the first positions that depend on others
    [
        (raster, causal_mask(), 0),
        (wavefront, causal_mask(), 0),
        (checkerboard, checkerboard_mask(), 1),
    ],
)
def test_what_a_position_depends_on_is_coded_in_earlier_steps(order, mask, first, size):
    time = times(order(*size), *size)
    for row, column in np.ndindex(*size):
        if time[row, column] < first:
            continue
        for down, right in (mask.nonzero() - 2).tolist():
            r, c = row + down, column + right
            if 0 <= r < size[0] and 0 <= c < size[1]:
                assert time[r, c] < time[row, column]


def test_cells_are_positions_of_the_padded_grid():
    padded = torch.zeros(3 + 2 * REACH, 5 + 2 * REACH)
    padded[REACH:-REACH, REACH:-REACH] = 1
    assert cells(torch.arange(15), 5).tolist() == padded.flatten().nonzero().flatten().tolist()


class Echo(Coder):
    """A coder that remembers, then answers from memory: the loop without a range coder."""

    def __init__(self, recorded=None):
        self.recorded = [] if recorded is None else recorded
        self.indexes = []
        self.at = 0

    def code(self, symbols, indexes):
        self.indexes.append(indexes)
        if symbols is not None:
            self.recorded.append(symbols)
            return symbols
        self.at += 1
        assert self.recorded[self.at - 1].shape == indexes.shape
        return self.recorded[self.at - 1]


@pytest.mark.parametrize("with_means", [False, True])
def test_gaussian_prior_rounds_around_means_and_takes_the_nearest_scale(with_means):
    shape = (2, 3, 4, 5)
    y = uniform([6], *shape, low=-50, high=50).float()
    levels = uniform([7], *shape, low=0, high=64).long()
    factor = 1.05 ** uniform([8], *shape)  # neighbouring levels are a factor of 1.13 apart
    scales = (scale_levels()[levels] * factor * 2**FRACTION_BITS).round()
    means = torch.round(uniform([9], *shape, low=-9, high=9) * GRID) if with_means else None
    writer = Echo()
    y_hat = code_gaussian(writer, y, shape, scales, means)
    offset = 0 if means is None else means / GRID
    assert torch.equal(y_hat, (torch.round(y.double() - offset) + offset).float())
    (indexes,) = writer.indexes
    assert torch.equal(indexes.long(), levels.flatten(2).mT)
    assert torch.equal(code_gaussian(Echo(writer.recorded), None, shape, scales, means), y_hat)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("blind", [0, 1])
def test_context_prior_predicts_from_the_steps_before_and_blind_steps_from_nothing(order, blind):
    """A context model that predicts 1/4 and the sum of what it sees, beside what was prepared."""
    shape = (2, 3, 4, 5)
    y = uniform([10], *shape, low=-50, high=50).float()
    prepared = torch.arange(40, dtype=torch.float64).view(2, 20, 1)

    class Sums:
        def prepare(self, psi):
            return psi

        def at(self, prepared, y_hat, positions, centres, row):
            assert centres.tolist() == cells(positions, 5).tolist() and row == 5 + 2 * REACH
            seen = 0 if y_hat is None else y_hat.sum(1, keepdim=True) + GRID // 4
            means = (prepared[:, positions] + seen).expand(-1, -1, 3)
            return torch.cat([torch.full_like(means, 2.0**FRACTION_BITS), means], 2)

    writer = Echo()
    y_hat = code_with_context(writer, y, shape, Sums(), prepared, order, blind)
    rows, coded = y.double().flatten(2).mT, torch.zeros(2, 20, 3, dtype=torch.float64)
    for step, positions in enumerate(order(4, 5)):
        seen = coded.sum(1, keepdim=True) + 0.25 if step >= blind else 0
        means = prepared[:, positions] / GRID + seen
        coded[:, positions] = torch.round(rows[:, positions] - means) + means
    assert torch.equal(y_hat.double(), coded.mT.view(shape))
    reader = Echo(writer.recorded)
    assert torch.equal(
        code_with_context(reader, None, shape, Sums(), prepared, order, blind), y_hat
    )
