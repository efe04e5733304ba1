"""The study's checkpoints on both sets of photographs that were held out.

    python -m benchmarks.held_out --dataset data/train      # writes statistics/held_out.csv

Which photographs are held out depends on their names. The runs on two CPU cores saw them in three
folders, those on the GPU in one, so 23 others validated. Each checkpoint's loss, at its own
lambda, on the one set and on the other tells how the two compare; `benchmarks.compute` divides
by it.

A checkpoint has been trained on the set that it did not hold out. Whether that shows is told by
those that held out the one and those that held out the other: the ratios of their losses would
differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import torch

from benchmarks.records import add_outdir, number, outdir, print_table, write_csv
from models import checkpoint
from models.base import Codec
from models.cli import guarded
from models.datasets import natural_order
from models.presets import STUDIED
from training.crops import CentreCrops
from training.data import ImageSet, held_out, open_dataset
from training.feed import MAX_HELD_OUT, VALIDATION_SIDE
from training.loss import RateDistortion

THREE_FOLDERS, ONE_FOLDER = "ae1777c2654bdd52", "5c5d6c45b3f351b1"  # fingerprints of the rest


def splits(dataset: str) -> dict[str, ImageSet]:
    """The photographs held out of the folder, by the fingerprint of those trained on: with the
    names that they have, and with the last part of them alone."""
    images = open_dataset(dataset, "train", min_side=VALIDATION_SIDE)
    renamed = (replace(s, name=PurePosixPath(s.name).name) for s in images.sources)
    flat = sorted(renamed, key=lambda s: natural_order(s.name))
    count = min(MAX_HELD_OUT, len(images) // 20)
    pairs = [held_out(each, count) for each in (images, replace(images, sources=tuple(flat)))]
    return {rest.fingerprint: out for rest, out in pairs}


@torch.no_grad()
def mean_loss(model: Codec, crops: Sequence[torch.Tensor]) -> float:
    """The mean over crops (3, H, W) of the loss at the model's own lambda, rounded latents."""
    loss = RateDistortion(model.point.lmbda, model.point.metric)
    total = 0.0
    for x in crops:
        output = model(x[None], quantization="round")
        output["x_hat"] = output["x_hat"].clamp(0, 1)
        total += loss(output, x[None]).loss.item()
    return total / len(crops)


def measure(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Every checkpoint on both sets; writes held_out.csv."""
    crops = {
        name: CentreCrops(images, VALIDATION_SIDE).tensors()
        for name, images in splits(options.dataset).items()
    }
    rows = []
    for model_name in STUDIED:
        for path in checkpoint.find(model_name, checkpoint.STUDY):
            model = checkpoint.load(path)
            losses = {name: mean_loss(model, crops[name]) for name in crops}
            rows += [
                {
                    "model": model_name,
                    "lmbda": f"{model.point.lmbda:g}",
                    "data_fingerprint": name,
                    "photographs": str(len(crops[name])),
                    "loss": number(value),
                }
                for name, value in losses.items()
            ]
    print_table(rows)
    study = set(crops) == {THREE_FOLDERS, ONE_FOLDER}
    write_csv(outdir(parser, options, free=["dataset"], study=study) / "held_out.csv", rows)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.held_out",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", required=True, help="the training photographs")
    add_outdir(parser)
    options = parser.parse_args(arguments)
    return guarded("held_out", lambda: measure(parser, options))


if __name__ == "__main__":
    sys.exit(main())
