"""The operating points of the study, what its codecs are called, and CompressAI's points.

Names, widths, lambdas and limits are stated here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

METRICS = ("mse", "ms-ssim")  # in the order of their numbers in a file
MAX_PIXELS = 1 << 27  # 134 megapixels, 400 MB as RGB: more than any single-shot camera


@dataclass(frozen=True)
class Entry:
    """What one codec of the study is called elsewhere."""

    short: str  # in tables and legends
    published: str  # its curve in statistics/reference/kodak_rd.csv
    architecture: str = ""  # CompressAI's with the same weights, if it has one
    context: bool = False  # predicts from latents that are decoded already


CATALOGUE = {  # in the order of the papers
    "Factorized": Entry("Factorized", "bmshj2018-factorized", "bmshj2018-factorized"),
    "Hyperprior": Entry("Hyperprior", "bmshj2018-hyperprior", "bmshj2018-hyperprior"),
    "JointAutoregressiveHierarchicalPriors": Entry("Joint", "mbt2018", "mbt2018", context=True),
    "CheckerboardAutogressive": Entry(
        "Checkerboard", "paper-minnen2018-checkerboard", context=True
    ),
}
STUDIED = tuple(CATALOGUE)
# Those that CompressAI has too: checkpoints convert, and speeds compare.
TWINS = {name: entry for name, entry in CATALOGUE.items() if entry.architecture}


def digits(value: float) -> str:
    """A number by as many digits as tell it from all others: 0.013, 0.01234567, 1e+06."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))


def short(name: str) -> str:
    """A codec's name in tables and legends: its own, if the catalogue has none."""
    return CATALOGUE[name].short if name in CATALOGUE else name


@dataclass(frozen=True)
class OperatingPoint:
    """One trained codec: its trade-off lambda (for `metric`) and its channels N and M."""

    model: str
    lmbda: float
    code_rate: str  # 'low' or 'high', the two widths of the study
    N: int
    M: int
    metric: str = "mse"


LAMBDAS = {"low": (0.0067, 0.013), "high": (0.025, 0.0483)}

CHANNELS = {  # N, M
    name: {"low": (192 if entry.context else 128, 192), "high": (192, 320)}
    for name, entry in CATALOGUE.items()
}

OPERATING_POINTS = tuple(
    OperatingPoint(model, lmbda, rate, *channels)
    for model, rates in CHANNELS.items()
    for rate, channels in rates.items()
    for lmbda in LAMBDAS[rate]
)

# lambda of CompressAI's quality 1..8 (its documentation, "Training"); qualities up to 5
# (4 with a context) have the channels of code rate 'low'.
ZOO_LAMBDAS = {
    "mse": (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800),
    "ms-ssim": (2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00),
}


def points(model: str, code_rate: str | None = None) -> tuple[OperatingPoint, ...]:
    """The study's points of a model, lowest lambda first; empty for a model not in it."""
    return tuple(
        p for p in OPERATING_POINTS if p.model == model and code_rate in (None, p.code_rate)
    )


def zoo_point(model: str, quality: int, metric: str = "mse") -> OperatingPoint:
    """CompressAI's point of quality 1..8, of one of `METRICS`; ValueError for another quality."""
    if model not in CHANNELS:
        raise ValueError(f"{model} is not one of the zoo's models; give N, M and lambda.")
    if quality not in range(1, 9):
        raise ValueError(f"Quality is 1 to 8, not {quality}.")
    rate = "low" if quality <= (4 if CATALOGUE[model].context else 5) else "high"
    lmbda = ZOO_LAMBDAS[metric][quality - 1]
    return OperatingPoint(model, lmbda, rate, *CHANNELS[model][rate], metric)
