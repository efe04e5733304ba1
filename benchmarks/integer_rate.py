"""What exact integer entropy parameters cost in rate, against float ones.

    python -m benchmarks.integer_rate [--images FOLDER] [--checkpoints FILE ...]

For the same coded symbols: the bits of the streams, the ideal bits under the integer tables
that coded them, and the ideal bits under the float networks evaluated on the coded z_hat and
y_hat (densities and Gaussians in float, no tables). Their quotients are the cost of the range
coder and the cost of integers. Without --checkpoints: all in ckpts/, or, if there are none, a
random codec of each model with the statistics of a trained one; without --images the
built-in photographs.

Writes integer_rate.csv.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.calibration import calibrated
from benchmarks.records import add_outdir, outdir, print_table, write_csv
from benchmarks.timing import photograph
from models import MODELS, checkpoint
from models.base import Codec, pad
from models.coding.loop import Coder
from models.coding.range_coder import Writer, escape_bits
from models.datasets import list_images, sample_photographs
from models.entropy.gaussian import gaussian_likelihood
from models.entropy.tables import TOTAL, Tables
from models.images import read_image, to_tensor


class Counter(Coder):
    """A coder that writes, and adds up the ideal bits of what it writes under its tables."""

    def __init__(self, writer: Writer, tables: Tables):
        self.writer, self.tables, self.bits, self.escapes = writer, tables, 0.0, 0.0
        self.starts = np.cumsum(tables.lengths) - tables.lengths
        self.values: list[Tensor] = []

    def code(self, symbols: Tensor, indexes: Tensor) -> Tensor:
        """As `Writer.code`."""
        rows = indexes.numpy().ravel()
        values = symbols.numpy().ravel().astype(np.int64)
        slots = values - self.tables.first[rows]
        last = self.tables.lengths[rows] - 1
        escaped = (slots < 0) | (slots >= last)
        at = self.starts[rows] + np.where(escaped, last, slots)
        self.bits += float(np.log2(TOTAL / self.tables.frequencies[at]).sum())
        self.escapes += float(escape_bits(values[escaped]).sum())
        return self.writer.code(symbols, indexes)


@torch.no_grad()
def float_bits(model: Codec, y_hat: Tensor, z_hat: Tensor | None) -> float:
    """-log2 of the float likelihoods of coded latents; y_hat (1, M, h, w), z_hat (1, N, ., .)."""
    if z_hat is None:
        return _bits(model.entropy_bottleneck.likelihood(y_hat))
    bits = _bits(model.entropy_bottleneck.likelihood(z_hat))
    psi = model.h_s(z_hat)
    if not hasattr(model, "context_prediction"):
        return bits + _bits(gaussian_likelihood(y_hat, psi))
    scales, means = model.parameters_given(psi, y_hat)
    return bits + _bits(gaussian_likelihood(y_hat, scales, means))


def _bits(likelihoods: Tensor) -> float:
    return -likelihoods.double().log2().sum().item()


@torch.no_grad()
def bits_of(model: Codec, x: Tensor) -> dict[str, float]:
    """Bits of an image x (1, 3, H, W): "streams", "tables" and "float".

    "escapes" are those of the streams that hold escaped symbols themselves, for which the float
    likelihoods, bounded below, have no counterpart.
    """
    latents = model.analysis(pad(x, model.downsampling))
    frozen = model.frozen
    counters = {
        name: Counter(Writer(frozen.coding[name], 1), frozen.tables[name]) for name in model.streams
    }
    shapes = {name: value.shape for name, value in latents.items()}
    y_hat = model.code(counters, latents, shapes)
    z_hat = None
    if "z" in latents:  # as `code_factorized` rounds: around the medians on the grid
        offsets = frozen.offsets["z"].view(1, -1, 1, 1) / 64
        z_hat = (torch.round(latents["z"].double() - offsets) + offsets).float()
    sizes = [len(counter.writer.finish()[0]) for counter in counters.values()]
    return {
        "streams": 8.0 * sum(sizes),
        "tables": sum(counter.bits + counter.escapes for counter in counters.values()),
        "float": float_bits(model, y_hat, z_hat),
        "escapes": sum(counter.escapes for counter in counters.values()),
    }


def row_of(name: str, model: Codec, images: Iterable[tuple[str, Tensor]]) -> dict:
    """A row: sums over the images, and the costs in percent."""
    total = dict.fromkeys(("streams", "tables", "float"), 0.0)
    pixels = count = 0
    for _, x in images:
        found = bits_of(model, x)
        total = {key: total[key] + found[key] for key in total}
        pixels, count = pixels + x[0, 0].numel(), count + 1
    percent = {
        "coder_percent": total["streams"] / total["tables"] - 1,
        "integers_percent": total["tables"] / total["float"] - 1,
        "together_percent": total["streams"] / total["float"] - 1,
    }
    return {
        "model": type(model).__name__,
        "weights": name,
        "images": count,
        "bpp": f"{total['streams'] / pixels:.4f}",
        **{f"{key}_bits": math.ceil(value) for key, value in total.items()},
        **{key: f"{100 * value:.4f}" for key, value in percent.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.integer_rate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoints", nargs="*", type=Path)
    parser.add_argument("--images", type=Path, help="a folder (default: built-in photographs)")
    add_outdir(parser)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of the program")
    options = parser.parse_args(arguments)
    paths = options.checkpoints
    if paths is None:
        paths = [] if options.quick else sorted(Path("ckpts").glob("*/*.safetensors"))
    if options.quick:
        images = [("coffee", photograph(64, 128))]
    elif options.images:
        images = [(p.name, to_tensor(read_image(p))) for p in list_images(options.images)]
    else:
        images = [(name, to_tensor(pixels)) for name, pixels in sample_photographs()]
    rows = [row_of(str(path), checkpoint.load(path), images) for path in paths]
    if not rows:
        N, M = (8, 12) if options.quick else (128, 192)
        x = photograph(64, 128) if options.quick else photograph(512, 768)
        rows = [row_of("random", calibrated(name, N, M, x), images) for name in MODELS]
    print_table(rows)
    write_csv(outdir(parser, options) / "integer_rate.csv", rows)


if __name__ == "__main__":
    main()
