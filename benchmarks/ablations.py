"""Short training runs that differ in one thing: the ablations behind the recipe of the study.

    python -m benchmarks.ablations optimizers --dataset data/train
    python -m benchmarks.ablations seeds --dataset data/train
    python -m benchmarks.ablations warm_start --dataset data/train
    python -m benchmarks.ablations kept_latents --dataset data/train

Every run is one of `train.py` with the same model, crops and cosine schedule; only what the
ablation names differs. Adam has the original's rate and a tenfold one, the other optimisers their
defaults. `warm_start` goes from lambda 0.013 to 0.0067, with the latents rescaled or the weights as
they are. `kept_latents` trains Joint from Hyperprior's transforms: its prior alone, on latents that
are computed once, or everything.

Writes NAME.csv: a row for each validation, of the averaged weights; `seconds` includes the
validations, and the computing of kept latents. The study's files, in statistics/, are those of the
photographs that its checkpoints were trained on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import train
from benchmarks.records import add_outdir, outdir, print_table, write_csv
from evaluation.curves import read_rows
from models import checkpoint
from models.cli import guarded
from models.errors import UsageError
from training.optimizers import DEFAULT_LR

ADAM, MUON = DEFAULT_LR["adam"], DEFAULT_LR["muon"]
# The flags of each run, beside those that all share. PARENT: the study's Hyperprior at 0.013.
LOWER = ("--lmbda", 0.0067, "--lr", 3e-4, "--rest_lr", 2e-4, "--init_ckpt", "PARENT")
JOINT = ("--model_name", "JointAutoregressive", "--init_ckpt", "PARENT")
ABLATIONS: dict[str, dict[str, Sequence]] = {
    "optimizers": {
        f"Adam {ADAM:g}": ("--optimizer", "adam", "--lr", ADAM),
        f"Adam {10 * ADAM:g}": ("--optimizer", "adam", "--lr", 10 * ADAM),
        f"Muon {MUON:g}": ("--optimizer", "muon", "--lr", MUON),
    },
    "seeds": {f"seed {seed}": ("--seed", seed) for seed in (1, 2, 3)},
    "warm_start": {
        "latents rescaled": LOWER,
        "weights as they are": (*LOWER, "--rescale", 1),
    },
    "kept_latents": {
        "prior alone, latents kept": (*JOINT, "--lr", 1e-3, "--fixed", "g_a", "g_s"),
        "everything": (*JOINT, "--lr", 3e-4, "--rest_lr", 2e-4),
    },
}
VALIDATIONS = 6
COLUMNS = ("step", "seconds", "val_loss", "val_bpp", "val_psnr")


def run(name: str, own: Sequence, options: argparse.Namespace, folder: Path) -> list[dict]:
    """Train once; the rows with a validation. UsageError if train.py fails."""
    words = [
        "--model_name", "Hyperprior", "--lmbda", 0.013, "--optimizer", "muon",
        "--epoch", VALIDATIONS, "--steps_per_epoch", max(1, options.steps // VALIDATIONS),
        "--scheduler", "cosine", "--warmup", 50, "--ema", 0.99,
        "--batch_size", options.batch_size, "--patch_size", options.patch_size,
        "--precision", options.precision, "--gpu_id", options.gpu_id,
        "--check_time", VALIDATIONS, "--exp_version", "run",
        "--log_every", options.steps, "--no_tensorboard", "--overwrite",
        "--runs", folder / "runs", "--ckpts", folder / "ckpts",
        *own,
    ]  # fmt: skip
    for flag in ("dataset", "threads", "N", "M"):
        if (value := getattr(options, flag)) is not None:
            words += [f"--{flag}", value]
    if train.main(list(map(str, words))):
        raise UsageError(f"train.py failed with {name}; its message is above.")
    (curve,) = (folder / "runs").glob("*/run/curve.csv")
    found = [row for row in read_rows(curve) if row["val_loss"]]
    return [{"run": name, **{column: row[column] for column in COLUMNS}} for row in found]


def data_of(ckpts: Path) -> set[str]:
    """The fingerprints of the data sets that the checkpoints in a folder were trained on."""
    paths = ckpts.glob("*/*.safetensors")
    return {checkpoint.read_metadata(p)["provenance"].get("data_fingerprint") for p in paths}


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("ablation", choices=tuple(ABLATIONS))
    add("--dataset", help="training images; none: the built-in photographs")
    add("--init_ckpt", type=Path, help="where warm starts begin (default: the study's Hyperprior)")
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
    return guarded("ablations", lambda: ablate(parser, options))


def ablate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Train every run of the ablation and write its CSV."""
    parent = options.init_ckpt
    if parent is None:
        (parent,) = checkpoint.find("Hyperprior", checkpoint.STUDY, lmbda=0.013)
    rows: list[dict] = []
    data: set[str] = set()
    for name, own in ABLATIONS[options.ablation].items():
        own = [parent if word == "PARENT" else word for word in own]
        with tempfile.TemporaryDirectory() as place:
            rows += run(name, own, options, Path(place))
            data |= data_of(Path(place, "ckpts"))
    print_table(rows)
    study = data <= data_of(checkpoint.STUDY)
    free = ["ablation", "dataset", "precision", "threads"]
    folder = outdir(parser, options, free=free, study=study)
    write_csv(folder / f"{options.ablation}.csv", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
