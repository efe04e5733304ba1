"""What the original study's way of coding the checkerboard costs: two full grids.

    python -m benchmarks.full_grids --dataset_path data/kodak      # two minutes

The original writes the anchors on a grid of the latent's full size, with zeros at the other
positions, and then the others likewise, and codes both grids whole. Here the latents of our
trained Checkerboard are coded in both ways, with the same tables, integer networks and range
coder; both are decoded, and must give the same latents, so that the images are the same to the
bit and nothing but the rate differs.

Writes full_grids.csv: for each checkpoint the means over the images, in bits per pixel.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.records import print_table
from evaluation.photographs import dataset_name, is_kodak, open_photographs
from evaluation.results import OUTPUTS, result_folder
from models import checkpoint
from models.base import Codec, pad
from models.cli import guarded
from models.coding.loop import Coder, cells, code_latents
from models.coding.orders import REACH, everywhere
from models.coding.priors import ScaleIndex, code_factorized, to_grid
from models.coding.range_coder import Reader, Writer
from models.entropy.tables import GRID
from models.files import csv_text, write_text
from models.images import to_tensor
from models.layers import parity

MODEL = "CheckerboardAutogressive"


def code_full_grids(
    model: Codec, coders: Sequence[Coder], y: Tensor | None, shape: tuple[int, ...], z_hat: Tensor
) -> Tensor:
    """Code y (B, M, h, w), or read it where None, on two full grids; returns y_hat.

    coders: of the anchors' grid and of the others'. z_hat (B, N, h/4, w/4): in units of 1/64.
    """
    height, width = shape[2:]
    networks = model.frozen.networks
    context = networks["context"]
    prepared = context.prepare(networks["h_s"](z_hat))
    scale_index = ScaleIndex(prepared.device)
    odd = parity(height, width)  # 0 for anchors
    seen: Tensor | None = None  # the anchors, on the padded grid of the coding loop
    y_hat = torch.zeros(shape)

    def params_at(_: Tensor, positions: Tensor, step: int) -> tuple[Tensor, Tensor]:
        centres = cells(positions, width)
        params = context.at(prepared, seen, positions, centres, width + 2 * REACH)
        scales, means = params.chunk(2, 2)
        return means, scale_index(scales)

    for coder, own in zip(coders, (1 - odd, odd), strict=True):
        grid = None if y is None else y * own  # zeros in the holes
        y_hat += code_latents(coder, grid, shape, everywhere(height, width), params_at) * own
        padded = F.pad(y_hat, (REACH,) * 4).permute(0, 2, 3, 1).flatten(1, 2)
        seen = padded.double() * GRID
    return y_hat


@torch.no_grad()
def bits_of(model: Codec, x: Tensor) -> tuple[int, int]:
    """Bits of the streams of an image x (1, 3, H, W): each position once, and on two full grids.

    RuntimeError unless both decode to the same latents.
    """
    latents = model.analysis(pad(x, model.downsampling))
    shapes = {name: value.shape for name, value in latents.items()}
    once = model.encode(latents)
    frozen = model.frozen
    z_writer, *writers = (Writer(frozen.coding[name], 1) for name in ("z", "y", "y"))
    z_hat = to_grid(code_factorized(z_writer, latents["z"], shapes["z"], frozen.offsets["z"]))
    code_full_grids(model, writers, latents["y"], shapes["y"], z_hat)
    grids = [writer.finish() for writer in writers]
    readers = [Reader(frozen.coding["y"], streams) for streams in grids]
    y_hat = code_full_grids(model, readers, None, shapes["y"], z_hat)
    rows, columns = shapes["y"][2:]
    if not torch.equal(y_hat, model.decode(once, 16 * rows, 16 * columns)):
        raise RuntimeError("The two ways of coding decode to different latents.")
    parts = [*z_writer.finish(), *(stream for streams in grids for stream in streams)]
    return 8 * sum(len(s[0]) for s in once), 8 * sum(map(len, parts))


def row_of(model: Codec, images: Sequence[Tensor]) -> dict[str, str]:
    """A row of the table: means over the images, each (1, 3, H, W)."""
    sizes = [[bits / x[0, 0].numel() for bits in bits_of(model, x)] for x in images]
    once, twice = (sum(column) / len(sizes) for column in zip(*sizes, strict=True))
    return {
        "lmbda": f"{model.point.lmbda:g}" if model.point else "",
        "images": str(len(images)),
        "once_bpp": f"{once:.6f}",
        "full_grids_bpp": f"{twice:.6f}",
        "ratio": f"{twice / once:.4f}",
    }


def run(options: argparse.Namespace) -> int:
    """Measure and write; raises what `guarded` turns into a line."""
    paths = options.checkpoints or checkpoint.find(MODEL)
    photographs = open_photographs(options.dataset_path)
    images = [to_tensor(photograph.read()) for photograph in photographs]
    rows = sorted(
        (row_of(checkpoint.load(path), images) for path in paths), key=lambda r: float(r["lmbda"])
    )
    print(f"{len(images)} images of {dataset_name(options.dataset_path)}")
    print_table(rows)
    study = is_kodak(photographs) and not options.checkpoints
    out = result_folder(options.outdir, study, OUTPUTS) / "full_grids.csv"
    write_text(out, csv_text(rows, rows[0]))
    print(f"Wrote {out}.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.full_grids",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="PATH", help="images (default: built-in photographs)")
    add("--checkpoints", nargs="*", type=Path, help="of Checkerboard (default: those in ckpts/)")
    add("--outdir", type=Path, metavar="DIR",
        help="default: statistics for Kodak and the study's checkpoints, else outputs")  # fmt: skip
    options = parser.parse_args(arguments)
    return guarded("full_grids", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
