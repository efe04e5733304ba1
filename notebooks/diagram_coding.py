"""The diagrams of coding: orders as step numbers, masks, the two passes, the file."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib
from matplotlib.colors import to_hex
from torch import Tensor

from models.coding import orders
from models.layers import causal_mask, checkerboard_mask
from notebooks.diagram_style import Diagram, Node

Order = Callable[[int, int], list[Tensor]]
Steps = list[list[int]]

EMPTY = "#ffffff"
ANCHOR = "#bcd6f2"
NON_ANCHOR = "#fbd9a8"
SEEN, CENTRE = "#b9e3c0", "#f6b8b1"
NEIGHBOUR = "#b03f36"


def step_numbers(order: Order, rows: int, columns: int) -> Steps:
    """The step at which each position of a rows x columns latent is coded."""
    numbers = [[-1] * columns for _ in range(rows)]
    for step, positions in enumerate(order(rows, columns)):
        for position in positions.tolist():
            numbers[position // columns][position % columns] = step
    return numbers


ROWS, COLUMNS = 6, 8  # of the latents drawn


def _draw_order(d: Diagram, x: float, order: Order, mask: Tensor, title: str, cost: str) -> None:
    """Step numbers, coloured by time, and what the position at row 3, column 4 may see."""
    cell, y = 3.7, 11.5
    steps = step_numbers(order, ROWS, COLUMNS)
    last = max(map(max, steps))
    colours = matplotlib.colormaps["YlGnBu"]
    fills = [[to_hex(colours(0.04 + 0.42 * t / last)) for t in row] for row in steps]
    grid = d.grid(x, y, cell, fills, [[str(t) for t in row] for row in steps])
    d.text(grid.x, y - 3, title, size=11.5, weight="bold")
    d.text(grid.x, y + grid.height + 2.8, cost, size=10)
    at_row, at_column, inset = 3, 4, 0.35
    for i, j in mask.nonzero().tolist():
        row, column = at_row + i - 2, at_column + j - 2
        if row < ROWS and column < COLUMNS:
            corner = (x + column * cell + inset, y + row * cell + inset)
            d.outline(*corner, cell - 2 * inset, cell - 2 * inset, NEIGHBOUR, 1.4)
    d.outline(x + at_column * cell, y + at_row * cell, cell, cell)


def _cost(order: Order) -> str:
    here, kodak = len(order(ROWS, COLUMNS)), len(order(32, 48))
    return f"{here} steps here; 32×48 latent: {kodak:,}"


def coding_orders() -> Diagram:
    """Raster, wavefront and checkerboard as step numbers over a small latent."""
    d = Diagram(106, 45, "Coding orders: the step at which each latent position is coded")
    for x, order, mask, title in (
        (4, orders.raster, causal_mask(), "raster"),
        (38.2, orders.wavefront, causal_mask(), "wavefront: $t$ = column + 3 · row"),
        (72.4, orders.checkerboard, checkerboard_mask(), "checkerboard"),
    ):
        _draw_order(d, x, order, mask, title, _cost(order))
    d.note(
        3, 41.3, "Positions with equal numbers are coded together. The context model of the "
        "position in black sees those in red;\nall of them have smaller numbers, and so raster "
        "and wavefront code the same symbols.", size=10, ha="left",
    )
    return d


def _pass(d: Diagram, y: float, context: str) -> tuple[Node, Node, Node]:
    """A row of the checkerboard diagram: context, entropy parameters, coder, stream."""
    first = d.box(37, y, 19, 6.4, context, "context")
    parameters = d.box(61, y, 14, 6.4, "entropy\nparameters", "context")
    coder = d.box(80, y, 10, 5, "AE | AD", "coder", weight="bold")
    d.link(first, parameters, r"$\phi$")
    d.link(parameters, coder, r"$\mu, \sigma$")
    d.link(coder, d.box(97, y, 10, 5, "bits of $y$", "stream"))
    return first, parameters, coder


def _board(d: Diagram, y: float, title: str, shown: tuple[int, ...]) -> None:
    """The latent in a pass: the number of the pass where something is known or coded."""
    colour = {0: ANCHOR, 1: NON_ANCHOR}
    steps = step_numbers(orders.checkerboard, ROWS, COLUMNS)
    fills = [[colour[t] if t in shown else EMPTY for t in row] for row in steps]
    texts = [[str(t + 1) if t in shown else "" for t in row] for row in steps]
    d.grid(4, y - 6.9, 2.3, fills, texts, size=8.5)
    d.text(4, y - 9.1, title, size=11, ha="left", weight="bold")


def checkerboard() -> Diagram:
    """He et al. 2021: the two passes, and the mask against the causal one."""
    d = Diagram(106, 75, "Checkerboard context: two passes instead of one per position")
    _board(d, 18, "pass 1: anchors", (0,))
    _, parameters, anchors = _pass(d, 18, r"no context: $\phi = 0$")
    d.link(d.tensor(61, 10, r"$\psi$"), parameters)
    _board(d, 40, "pass 2: non-anchors", (0, 1))
    context, parameters, _ = _pass(d, 40, "checkerboard-masked\n5×5 convolution")
    d.link(d.tensor(61, 48, r"$\psi$"), parameters)
    d.note(64, 48, "from $h_s$, at all positions at once", ha="left")
    d.arrow(anchors.bottom, (80, 29), (37, 29), context.top)
    d.text(58.5, 27.3, r"$\hat{y}$ of the anchors, zero elsewhere", size=10.5)
    d.note(97, 29, "only the half that is\nbeing coded goes\ninto the stream")
    _mask(
        d, 4, causal_mask(), "causal mask",
        "raster, wavefront:\n12 neighbours, all\ncoded before",
    )
    _mask(
        d, 55, checkerboard_mask(), "checkerboard mask",
        "for a non-anchor:\n12 neighbours on all sides,\nevery one an anchor",
    )
    return d


def _mask(d: Diagram, x: float, mask: Tensor, title: str, remark: str) -> None:
    """A 5 x 5 mask as ones and zeros, its centre marked."""
    taps = mask.int().tolist()
    fills = [[SEEN if tap else EMPTY for tap in row] for row in taps]
    fills[2][2] = CENTRE
    d.grid(x, 55, 3.2, fills, [[str(tap) for tap in row] for row in taps], size=10)
    d.text(x + 18.5, 58.5, title, size=11, ha="left", weight="bold")
    d.note(x + 18.5, 64.5, remark, size=10, ha="left")


FILE_FIELDS = (  # name, what it is for, width, role
    ("magic,\nversion", "what file\nthis is", 11, "data"),
    ("model", "which of\nthe codecs", 10, "data"),
    ("operating\npoint", "distortion\nand λ", 12, "data"),
    ("digest", "of tables and\ninteger weights", 13, "data"),
    ("height,\nwidth", "the size that\ncomes back", 12, "data"),
    ("stream\nlengths", "where each\none ends", 11, "data"),
    ("streams", "range coder output:\nof z if there is one, then of y", 22, "stream"),
    ("CRC-32", "of all\nbefore it", 9, "loss"),
)


def file_layout() -> Diagram:
    """The fields of a compressed file in their order."""
    d = Diagram(106, 27, "The file: one photograph, self-describing")
    x = 3.5
    for name, purpose, width, role in FILE_FIELDS:
        d.box(x + width / 2, 11, width - 0.5, 7, name, role, weight="bold")
        d.note(x + width / 2, 17.5, purpose, size=9.5)
        x += width
    d.note(
        3.5, 23.5, "The rate in every table and figure is the size of this whole file.   A flipped "
        "bit or a missing end is found before decoding.", size=9.5, ha="left",
    )
    return d
