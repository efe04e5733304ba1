"""Adam, SOAP and Muon on the same short training run: loss on held-out images against steps.

    python -m benchmarks.optimizers --dataset data/train

Every run is one of `train.py` with the same model, crops, noise and cosine schedule; only the
optimiser and its peak rate differ. Adam has the report's rate and a tenfold one, the others
their defaults. Writes optimizers.csv: a row for each validation, of the averaged weights;
`seconds` includes the validations. The study's file, in statistics/, is that of the photographs
that its checkpoints were trained on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import train
from benchmarks.records import add_outdir, outdir, print_table, write_csv
from evaluation.curves import read_rows
from models import checkpoint
from models.errors import UsageError
from training.optimizers import DEFAULT_LR

RUNS = (
    ("adam", DEFAULT_LR["adam"]),
    ("adam", 10 * DEFAULT_LR["adam"]),
    ("soap", DEFAULT_LR["soap"]),
    ("muon", DEFAULT_LR["muon"]),
)
VALIDATIONS = 6
COLUMNS = ("step", "seconds", "val_loss", "val_bpp", "val_psnr")


def run(optimizer: str, lr: float, options: argparse.Namespace, folder: Path) -> list[dict]:
    """Train once; the rows with a validation. UsageError if train.py fails."""
    words = [
        "--optimizer", optimizer, "--lr", f"{lr:g}", "--model_name", options.model_name,
        "--lmbda", options.lmbda, "--epoch", VALIDATIONS,
        "--steps_per_epoch", max(1, options.steps // VALIDATIONS), "--scheduler", "cosine",
        "--warmup", 50, "--ema", 0.99, "--batch_size", options.batch_size,
        "--patch_size", options.patch_size, "--precision", options.precision,
        "--gpu_id", options.gpu_id, "--check_time", VALIDATIONS, "--exp_version", "run",
        "--log_every", options.steps, "--no_tensorboard", "--overwrite",
        "--runs", folder / "runs", "--ckpts", folder / "ckpts",
    ]  # fmt: skip
    for name in ("dataset", "threads", "N", "M"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", value]
    if train.main(list(map(str, words))):
        raise UsageError(f"train.py failed with {optimizer}; its message is above.")
    (curve,) = (folder / "runs").glob("*/run/curve.csv")
    found = [row for row in read_rows(curve) if row["val_loss"]]
    return [
        {"optimizer": optimizer, "lr": f"{lr:g}", **{name: row[name] for name in COLUMNS}}
        for row in found
    ]


def data_of(ckpts: Path) -> set[str]:
    """The fingerprints of the data sets that the checkpoints in a folder were trained on."""
    paths = ckpts.glob("*/*.safetensors")
    return {checkpoint.read_metadata(p)["provenance"].get("data_fingerprint") for p in paths}


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.optimizers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", help="training images; none: the built-in photographs")
    add("--model_name", default="Hyperprior")
    add("--lmbda", type=float, default=0.013)
    add("--steps", type=int, default=300)
    add("--batch_size", type=int, default=8)
    add("--patch_size", type=int, default=128)
    add("--precision", choices=("fp32", "bf16"), default="bf16")
    add("--gpu_id", default="cpu")
    add("--threads", type=int)
    add("--N", type=int)
    add("--M", type=int)
    add_outdir(parser)
    options = parser.parse_args(arguments)
    rows, data = [], set()
    for optimizer, lr in RUNS:
        with tempfile.TemporaryDirectory() as place:
            try:
                rows += run(optimizer, lr, options, Path(place))
            except UsageError as error:
                print(error, file=sys.stderr)
                return 1
            data |= data_of(Path(place, "ckpts"))
    print_table(rows)
    study = data <= data_of(checkpoint.STUDY)
    folder = outdir(parser, options, free=["dataset", "threads"], study=study)
    write_csv(folder / "optimizers.csv", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
