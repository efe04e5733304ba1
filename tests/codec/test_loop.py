"""The coding orders; what is coded along them is in test_golden, test_decoder and test_gains."""

import numpy as np
import pytest
import torch

from models.coding.orders import AHEAD, REACH, checkerboard, everywhere, raster, wavefront
from models.layers import causal_mask, checkerboard_mask

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
        for tap, (down, right) in enumerate((mask.nonzero() - 2).tolist()):
            r, c = row + down, column + right
            if 0 <= r < size[0] and 0 <= c < size[1]:
                # Seven taps of the causal mask are multiplied for several steps at once.
                early = first == 0 and tap < 7 and size[1] > REACH
                assert time[row, column] - time[r, c] >= (AHEAD if early else 1)
