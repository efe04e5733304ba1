"""What the transforms in bf16 cost: error and rate against fp32, every trained checkpoint.

    python -m benchmarks.precision --images data/kodak [--model_name Hyperprior ...]

Each image is written and read in both precisions. precision.csv has, for each checkpoint, the run
that it comes from, and means over the images: PSNR in fp32; what changes where only the reader is
in bf16, and where both are; the change of the rate; the share of y's symbols that differ, and the
largest difference of a pixel.
Needs a CPU (or GPU, --device) with bf16 instructions.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.records import add_outdir, number, outdir, print_table, write_csv
from evaluation.metrics import psnr
from evaluation.photographs import is_kodak, open_photographs
from models import MODELS, canonical_name, checkpoint
from models.base import Codec
from models.cli import Progress, choose_device, guarded
from models.coding.container import padded, unpack
from models.errors import CheckpointError
from models.images import to_tensor, to_uint8
from training.inheritance import ancestors


def latents_in(model: Codec, data: bytes) -> torch.Tensor:
    """y_hat (1, M, H/16, W/16) of a file."""
    header, parts = unpack(data)
    return model.decode(
        [[part] for part in parts], *padded(header.height, header.width, model.downsampling)
    )


def compare(model: Codec, pixels: np.ndarray) -> dict[str, float]:
    """The columns of one image (H, W, 3)."""
    x = to_tensor(pixels).to(next(model.parameters()).device)
    files = {p: model.use(p).compress(x)[0] for p in ("fp32", "bf16")}
    read = {
        (writer, reader): to_uint8(model.use(reader).decompress([files[writer]]))
        for writer, reader in (("fp32", "fp32"), ("fp32", "bf16"), ("bf16", "bf16"))
    }
    quality = {pair: psnr(pixels, image) for pair, image in read.items()}
    plain = quality["fp32", "fp32"]
    moved = latents_in(model, files["fp32"]) - latents_in(model, files["bf16"])
    levels = np.abs(read["fp32", "bf16"].astype(int) - read["fp32", "fp32"]).max()
    return {
        "psnr": plain,
        "reader_db": quality["fp32", "bf16"] - plain,
        "both_db": quality["bf16", "bf16"] - plain,
        "rate_percent": 100 * (len(files["bf16"]) / len(files["fp32"]) - 1),
        "symbols_percent": 100 * (moved.abs() > 0.5).double().mean().item(),
        "largest_level": float(levels),
    }


def checkpoints_of(names: list[str]) -> list[Path]:
    """The study's, of these models, those that there are."""
    found = []
    for name in names:
        try:
            found += checkpoint.find(name)
        except CheckpointError:
            continue
    return found


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Write the table and print it; raises what `guarded` turns into a line."""
    device = choose_device(options.device)
    photographs = open_photographs(options.images)
    study = is_kodak(photographs)
    folder = outdir(parser, options, free=["images", "device"], study=study)
    rows = []
    for path in checkpoints_of(options.model_name):
        model = checkpoint.load(path, device).use("bf16")
        label = f"{type(model).__name__} {model.point.lmbda:g}"
        found = []
        with Progress(label, len(photographs), "image") as progress, torch.no_grad():
            for photograph in photographs:
                found.append(compare(model, photograph.read()))
                progress.step()
        row = {"model": type(model).__name__, "lmbda": f"{model.point.lmbda:g}"}
        row |= {"run_id": ancestors(path)[0]["run_id"], "images": str(len(found))}
        for name in found[0]:
            values = [one[name] for one in found]
            mean = max(values) if name == "largest_level" else statistics.mean(values)
            row[name] = number(mean, 6 if name == "psnr" else 3)
        rows.append(row)
    if not rows:
        raise CheckpointError("There is no checkpoint of these models.")
    print_table(rows)
    write_csv(folder / "precision.csv", rows, str(device))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--images", type=Path, help="a folder, or one image (default: built-in photographs)")
    add("--model_name", nargs="+", type=canonical_name, default=list(MODELS))
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add_outdir(parser)
    options = parser.parse_args(arguments)
    return guarded("precision", lambda: run(parser, options))


if __name__ == "__main__":
    sys.exit(main())
