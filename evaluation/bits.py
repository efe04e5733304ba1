"""Where the bits of a compressed file go: the cost of every position, as the coder sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.base import Codec, pad
from models.coding.loop import Coder
from models.coding.orders import everywhere
from models.coding.range_coder import escape_bits
from models.entropy.tables import PRECISION, Tables

Order = Callable[[int, int], list[Tensor]]


class Meter(Coder):
    """A coder that stores nothing and notes what each symbol costs.

    The cost is -log2(frequency / 2**24) from the frozen integer table that the range coder
    uses for that symbol, and `escape_bits` more for a symbol outside the table. It stands in for a
    `Writer` in the coding loop, so context and order are those of the real file.
    """

    def __init__(self, tables: Tables):
        lengths = tables.lengths.astype(np.int64)
        self.cost = PRECISION - np.log2(tables.frequencies)
        self.start = np.cumsum(lengths) - lengths
        self.escape = lengths - 1
        self.first = tables.first.astype(np.int64)
        self.steps: list[np.ndarray] = []  # bits (n,) of each step, summed over channels

    def code(self, symbols: Tensor, indexes: Tensor) -> Tensor:
        """Note the cost of symbols (1, n, C) under the tables `indexes`; returns symbols."""
        rows = indexes.cpu().numpy()
        values = symbols.cpu().numpy()
        slots = values.astype(np.int64) - self.first[rows]
        escaped = (slots < 0) | (slots >= self.escape[rows])
        slots = np.where(escaped, self.escape[rows], slots)
        bits = self.cost[self.start[rows] + slots]
        bits[escaped] += escape_bits(values[escaped])
        self.steps.append(bits.sum((0, 2)))
        return symbols

    def grid(self, order: Order, height: int, width: int) -> np.ndarray:
        """The noted bits at the positions of the order that they were coded in, (height, width)."""
        bits = np.empty(height * width)
        bits[torch.cat(order(height, width)).numpy()] = np.concatenate(self.steps)
        return bits.reshape(height, width)


@torch.no_grad()
def bits_per_position(model: Codec, x: Tensor) -> np.ndarray:
    """Bits of each 16x16 block of an image x (1, 3, H, W) in [0, 1]; float64 (h, w).

    h and w are those of y for the padded image. The bits of z, at one position for 4x4
    blocks, are spread evenly over them. The sum is that of the file's streams but for the
    last word of each range coder; header and checksum are not in it.
    """
    latents = model.analysis(pad(x, model.downsampling))
    meters = {name: Meter(tables) for name, tables in model.frozen.tables.items()}
    model.code(meters, latents, {name: v.shape for name, v in latents.items()})
    height, width = latents["y"].shape[2:]
    total = np.zeros((height, width))
    for name, meter in meters.items():
        rows, columns = latents[name].shape[2:]
        block = np.ones((height // rows, width // columns))
        order = getattr(model, "order", everywhere) if name == "y" else everywhere
        total += np.kron(meter.grid(order, rows, columns), block / block.size)
    return total
