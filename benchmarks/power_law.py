"""The power law L = floor + a C^-b of a loss against compute, and how well points know it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_distribution

MIN_POINTS = 8  # three numbers are fitted, and the rest tells how well
FLOORS = 2000  # values that are tried
CONFIDENCE = 0.95


@dataclass(frozen=True)
class PowerLaw:
    """L = floor + a C^-b, with a root mean square error of `rms`. `floors` are those that fit
    nearly as well, each with its (a, b) in `others`."""

    floor: float
    a: float
    b: float
    rms: float
    floors: tuple[float, ...]
    others: tuple[tuple[float, float], ...]

    def __call__(self, compute):
        """The loss after so much compute."""
        return self.floor + self.a * compute**-self.b

    def meets(self, loss: float) -> float:
        """The compute at which the law has this loss; infinite if it never has."""
        return _meets(loss, self.floor, self.a, self.b)

    def range_of_meeting(self, loss: float) -> tuple[float, float]:
        """The least and most compute at which one of the laws that fit has this loss."""
        found = [
            _meets(loss, floor, *ab) for floor, ab in zip(self.floors, self.others, strict=True)
        ]
        return min(found), max(found)


def _meets(loss: float, floor: float, a: float, b: float) -> float:
    return ((loss - floor) / a) ** (-1 / b) if loss > floor else math.inf


def fit(points: Sequence[tuple[float, float]]) -> PowerLaw:
    """Least squares in the loss's logarithm above the floor, for the floor with the least error.

    `points`: (compute, loss), losses positive. Floors from 0 to just below the least loss are
    tried; those "that fit nearly as well" are the 95 % interval of the profile of squared errors
    of the loss, as if errors were independent. Points along one run are not, so the interval is
    a lower bound of what is not known. ValueError for fewer than `MIN_POINTS`.
    """
    if len(points) < MIN_POINTS:
        raise ValueError(f"A power law needs {MIN_POINTS} points, not {len(points)}.")
    compute, loss = np.array(points, float).T
    floors = loss.min() * np.linspace(0, 1, FLOORS, endpoint=False)
    laws, errors = [], []
    for floor in floors:
        slope, offset = np.polyfit(np.log(compute), np.log(loss - floor), 1)
        a, b = float(np.exp(offset)), float(-slope)
        laws.append((a, b))
        errors.append(float(np.sum((floor + a * compute**-b - loss) ** 2)))
    best = int(np.argmin(errors))
    free = len(points) - 3
    most = errors[best] * (1 + f_distribution.ppf(CONFIDENCE, 1, free) / free) + 1e-12
    near = [k for k, error in enumerate(errors) if error <= most]
    return PowerLaw(
        float(floors[best]), *laws[best], math.sqrt(errors[best] / len(points)),
        tuple(float(floors[k]) for k in near), tuple(laws[k] for k in near),
    )  # fmt: skip
