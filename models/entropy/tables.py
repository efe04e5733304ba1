"""The only place where a probability becomes an integer.

A table lists the frequencies of consecutive symbols, first..first + n - 2, and of one
last entry, the escape, that stands for every symbol outside. The frequencies of a table
sum to 2**24. Tables are made once, when a checkpoint is frozen, and stored in it: other
machines read them and never evaluate a probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from models.entropy.density import TAIL_MASS, NonParametricDensity
from models.entropy.gaussian import scale_levels, standard_cumulative

PRECISION = 24
TOTAL = 1 << PRECISION
GRID = 64  # means and medians are multiples of 1/64
MAX_SUPPORT = 1 << 14
LONGEST = MAX_SUPPORT + 2  # entries of a table, the escape's included
FINE = 1 << 20  # of `scaled_tables`: parts of a symbol that are told apart


@dataclass(frozen=True)
class Tables:
    """Integer frequency tables, one behind the other.

    frequencies: (sum of lengths,) int32; lengths: (T,) int32, the escape included;
    first: (T,) int32, the symbol of a table's first entry; offsets: (T,) int32, the
    centre that symbols are counted from, in units of 1/64 (zero for Gaussians, whose
    mean is not the table's).
    """

    frequencies: np.ndarray
    lengths: np.ndarray
    first: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        ends = np.cumsum(self.lengths)
        valid = (
            all(array.ndim == 1 for array in vars(self).values())
            and len(self.lengths) == len(self.first) == len(self.offsets) > 0
            and 2 <= self.lengths.min() <= self.lengths.max() <= LONGEST
            and ends[-1] == len(self.frequencies)
            and self.frequencies.min() >= 1
            and (np.add.reduceat(self.frequencies, ends - self.lengths, dtype=int) == TOTAL).all()
        )
        if not valid:
            raise ValueError("The frequency tables are inconsistent; freeze the model again.")

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self) -> list[np.ndarray]:
        """The frequencies of each table, (length,) int32."""
        return np.split(self.frequencies, np.cumsum(self.lengths)[:-1])

    def tensors(self) -> dict[str, Tensor]:
        """The four arrays as tensors, for a checkpoint."""
        return {name: torch.from_numpy(np.array(a)) for name, a in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], prefix: str = "") -> Tables:
        """The inverse of `tensors`; ValueError when they do not fit together."""
        names = [prefix + name for name in cls.__annotations__]
        return cls(*(tensors[name].cpu().numpy().astype(np.int32) for name in names))


def to_frequencies(masses: np.ndarray) -> np.ndarray:
    """Probabilities (n,), not all zero, to integers (n,) >= 1 that sum to 2**24.

    Every entry gets one, the rest is dealt in proportion, and what flooring leaves over
    goes to the largest. With 24 bits the cost is below n / 2**24 of the rate.
    """
    spare = TOTAL - len(masses)
    frequencies = 1 + np.floor(masses / masses.sum() * spare).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()
    return frequencies.astype(np.int32)


def _pack(rows: list[np.ndarray], first: np.ndarray, offsets: np.ndarray) -> Tables:
    frequencies = np.concatenate([to_frequencies(row) for row in rows])
    lengths = np.array([len(row) for row in rows])
    return Tables(*(a.astype(np.int32) for a in (frequencies, lengths, first, offsets)))


def gaussian_tables() -> Tables:
    """One zero-mean table per scale level, over all but `TAIL_MASS` of its mass."""
    rows, radii = [], []
    tail = -NormalDist().inv_cdf(TAIL_MASS / 2)
    for sigma in scale_levels().tolist():
        radius = int(np.ceil(sigma * tail))
        distance = torch.arange(-radius, radius + 1, dtype=torch.float64).abs()
        upper = standard_cumulative((0.5 - distance) / sigma)
        lower = standard_cumulative((-0.5 - distance) / sigma)
        outside = 2 * lower[:1]  # both tails, beyond the outermost interval
        rows.append(torch.cat([upper - lower, outside]).numpy())
        radii.append(radius)
    return _pack(rows, -np.array(radii), np.zeros(len(rows)))


@torch.no_grad()
def density_tables(density: NonParametricDensity) -> Tables:
    """One table per channel, centred on the channel's median rounded to 1/64."""
    medians = torch.round(density.medians().flatten().double() * GRID)
    low = density.solve_quantile(TAIL_MASS / 2) - medians / GRID
    high = density.solve_quantile(1 - TAIL_MASS / 2) - medians / GRID
    first = low.floor().clamp(-MAX_SUPPORT // 2, 0)
    last = high.ceil().clamp(0, MAX_SUPPORT // 2)
    rows = []
    width = int((last - first).max()) + 1
    symbols = first[:, None] + torch.arange(width, dtype=torch.float64, device=first.device)
    masses = density.masses(symbols + medians[:, None] / GRID).cpu().numpy()
    for row, length in zip(masses, (last - first + 1).int().tolist(), strict=True):
        inside = row[:length]
        rows.append(np.append(inside, max(1.0 - inside.sum(), 0.0)))
    return _pack(rows, first.cpu().numpy(), medians.cpu().numpy())


def scale_thresholds(fraction_bits: int) -> Tensor:
    """(63,) integers in units of 2**-fraction_bits: a scale's table is how many it exceeds.

    Thresholds are the geometric means of neighbouring levels: the nearest level in the
    logarithm costs the least rate, a quarter of what rounding up to the next one costs.
    """
    levels = scale_levels()
    middle = (levels[1:] * levels[:-1]).sqrt()
    return torch.round(middle * 2**fraction_bits)


def scaled_tables(tables: Tables, units: int, unit: int) -> Tables:
    """The tables of v * units / unit from those of v, one density a table; in integers alone.

    A table tells the cumulative counts at the edges of its symbols; in the middle of symbol 0 they
    are half of all, since a table is centred on its median. Between these knots they are a monotone
    cubic (F. N. Fritsch, R. E. Carlson, 1980). Its slope at an edge is the geometric mean of the
    frequencies on both sides, as exponential tails have it.
    """
    first, offsets = tables.first.astype(np.int64), tables.offsets.astype(np.int64)
    inner = tables.lengths.astype(np.int64) - 1  # symbols of a table
    scaled = (offsets * units + unit // 2) // unit
    # Positions are in units of 1 / (64 * unit) of the new steps.
    step, starts = GRID * units, (offsets + first * GRID - GRID // 2) * units
    low, high = (
        np.clip((edge // unit - scaled + GRID // 2) // GRID, -MAX_SUPPORT // 2, MAX_SUPPORT // 2)
        for edge in (starts, starts + inner * step - 1)
    )
    ends = np.cumsum(high - low + 2)  # as many edges as entries, with the escape
    table = np.repeat(np.arange(len(tables)), high - low + 2)
    edges = (np.arange(ends[-1]) - (ends - high - 2)[table]) * GRID + scaled[table] - GRID // 2
    cumulative = _cumulative(tables, table, edges * unit - starts[table], step)
    # Rounding may let it fall by a count. Each table's counts are above those of the one before.
    counts = np.diff(np.maximum.accumulate(cumulative + table * 2 * TOTAL), append=0)
    rows = np.split(counts, ends[:-1])
    for row in rows:
        row[-1] = TOTAL - row[:-1].sum()
    return _pack(rows, low, scaled)


def _cumulative(tables: Tables, table: np.ndarray, positions: np.ndarray, step: int) -> np.ndarray:
    """Cumulative counts, int64, in tables (n,) at positions (n,) from their starts, symbols being
    `step` wide; see `scaled_tables`."""
    inner = tables.lengths.astype(np.int64) - 1
    begin = np.cumsum(inner) - inner
    mass = np.delete(tables.frequencies, np.cumsum(tables.lengths) - 1).astype(np.int64)
    left, right = np.roll(mass, 1), np.roll(mass, -1)
    left[begin], right[begin + inner - 1] = mass[begin], mass[begin + inner - 1]
    rise, fall = _slope(left, mass), _slope(mass, right)  # at both edges of each symbol
    below = np.cumsum(mass) - mass
    below -= np.repeat(below[begin], inner)
    start = 2 * (np.arange(len(mass)) - np.repeat(begin, inner))  # in half symbols
    width = np.full(len(mass), 2)

    # Symbol 0 becomes two of half the width. Slopes are per whole symbol, at most six times a half.
    middle = np.clip(-tables.first.astype(np.int64), 0, inner - 1)
    at = begin + middle
    half = np.clip(TOTAL // 2 - below[at], 0, mass[at])
    other = mass[at] - half
    peak = mass[at] ** 2 // np.maximum(np.maximum(rise[at], fall[at]), 1)
    peak = np.minimum(peak, 6 * np.minimum(half, other))
    halves = [
        (below, below[at], below[at] + half),
        (mass, half, other),
        (start, start[at], start[at] + 1),
        (width, 1, 1),
        (rise, np.minimum(rise[at], 6 * half), peak),
        (fall, peak, np.minimum(fall[at], 6 * other)),
    ]
    for array, one, _ in halves:
        array[at] = one
    below, mass, start, width, rise, fall = (np.insert(a, at + 1, two) for a, _, two in halves)

    inside = 2 * np.clip(positions, 0, inner[table] * step)
    place = np.minimum(inside // step, 2 * inner[table] - 1)
    k = begin[table] + table + place // 2 + (place > 2 * middle[table])
    part = (inside - start[k] * step) * FINE // (width[k] * step)
    mass, rise, fall = mass[k], rise[k] * width[k] // 2, fall[k] * width[k] // 2
    cubic = (rise + fall - 2 * mass) * part // FINE + 3 * mass - 2 * rise - fall
    return below[k] + (cubic * part // FINE + rise) * part // FINE


def _slope(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Counts per symbol at an edge between frequencies (n,); three times one are not exceeded."""
    mean = np.sqrt(left * right).astype(np.int64)  # exact before it is cut
    return np.minimum(mean, 3 * np.minimum(left, right))
