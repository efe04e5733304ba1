"""What each paper's prior is worth, everything else equal: five priors on the same latents.

    python -m benchmarks priors --dataset data/train --kodak data/kodak

Every prior starts from random weights on the frozen transforms of the trained Hyperprior and sees
the same latents, crops, optimiser and schedule. Then each codes the very same y of every test
image to a real file, which is decoded.

One row per run and image goes to `per_image/priors.csv` as soon as a run is measured, and the
means with their intervals to `priors.csv`. A stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib
import pickle
import shlex
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import models
from evaluation import tables
from evaluation.curves import mean_interval
from evaluation.metrics import psnr
from evaluation.photographs import Photograph, open_photographs
from models import checkpoint
from models.base import Codec, pad
from models.errors import DataError
from models.files import atomic_write
from models.images import to_tensor, to_uint8
from train import parser as train_parser
from training import train
from training.data import open_data
from training.inheritance import new_model
from training.latents import Latents
from training.settings import Settings, resolve
from training.team import Team

MEAN_SCALE = "docs.mean_scale"  # the model of docs/custom_model.md
# In the order of the papers, each with what it adds to the one before.
PRIORS = {
    "factorized": "Factorized",
    "scale": "Hyperprior",
    "mean and scale": "MeanScaleHyperprior",
    "checkerboard context": "CheckerboardAutogressive",
    "causal context": "JointAutoregressiveHierarchicalPriors",
}
BASE = "scale"  # what the others are compared with
RECIPE = (
    "--fixed g_a g_s --optimizer muon --lr 2e-3 --rest_lr 1e-2 --scheduler cosine --warmup 20 "
    "--ema 0.99 --ste_fraction 0.1 --batch_size 16 --latent_views 2 --val_time 1 --check_time 1000 "
    "--threads 1 --num_workers 0 --gpu_id cpu --no_tensorboard --save_minutes 5 --resume"
)
STEPS_PER_EPOCH = 100
IMAGE_COLUMNS = (
    "lmbda", "steps", "seed", "prior", "image", "width", "height", "bytes", "bpp", "psnr",
)  # fmt: skip
COLUMNS = (
    "lmbda", "steps", "seed", "prior", "images", "bpp", "psnr", "rate_against_scale_percent",
    "low_percent", "high_percent", "psnr_against_scale_db", "held_out_bpp", "parameters",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One training: a prior on the transforms of the Hyperprior of `lmbda`."""

    prior: str
    lmbda: float
    steps: int
    seed: int

    def settings(self, dataset: str, runs: Path) -> Settings:
        """As `train.py` would have them from the same flags."""
        transforms = checkpoint.find("Hyperprior", lmbda=self.lmbda)[-1]
        metadata = checkpoint.read_metadata(transforms)
        flags = [
            *shlex.split(RECIPE), "--model_name", PRIORS[self.prior], "--import_module", MEAN_SCALE,
            "--lmbda", str(self.lmbda), "--N", str(metadata["N"]), "--M", str(metadata["M"]),
            "--init_transforms", str(transforms), "--dataset", dataset, "--seed", str(self.seed),
            "--epoch", str(self.steps // STEPS_PER_EPOCH),
            "--steps_per_epoch", str(STEPS_PER_EPOCH), "--runs", str(runs),
            "--exp_version", f"{self.lmbda:g}_{self.steps}_{self.seed}",
        ]  # fmt: skip
        return resolve(train_parser().parse_args(flags))


# The first seed of everything comes first; half the steps tell how far from flat the curves are.
JOBS = tuple(
    Job(prior, lmbda, steps, seed)
    for lmbda, steps, seed in (
        (0.013, 600, 0), (0.0483, 300, 0), (0.013, 300, 0), (0.013, 600, 1), (0.013, 600, 2),
    )
    for prior in PRIORS
)  # fmt: skip


def kept_latents(settings: Settings, folder: Path) -> Latents:
    """The latents of the training images, computed once for each lambda and kept in `folder`.

    Their views are those of the first seed that asks.
    """
    path = folder / f"latents_{settings.lmbda:g}.pickle"
    if path.is_file():
        with path.open("rb") as file:
            return pickle.load(file)
    with torch.random.fork_rng():
        model = new_model(settings)
    latents = Latents(model, open_data(settings).images, settings)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        pickle.dump(latents, file, protocol=5)
    return latents


@torch.no_grad()
def measure(codec: Codec, lmbda: float, photographs: list[Photograph]) -> Iterator[dict]:
    """Code every photograph's y to a real file, decode it: one row of `IMAGE_COLUMNS` each.

    y comes from the float transforms of the Hyperprior of `lmbda`, which are those of `codec`.
    """
    transforms = models.load("Hyperprior", lmbda)
    for photograph in photographs:
        pixels = photograph.read()
        height, width = pixels.shape[:2]
        x = pad(to_tensor(pixels), transforms.downsampling)
        y = transforms.analysis(x)["y"]
        (data,) = codec.files(codec.latents(y), height, width)
        decoded = to_uint8(codec.decompress([data])[0])
        yield {
            "image": photograph.name, "width": width, "height": height, "bytes": len(data),
            "bpp": f"{8 * len(data) / (height * width):.6f}",
            "psnr": f"{psnr(pixels, decoded):.4f}",
        }  # fmt: skip


def run_job(job: Job, settings: Settings, photographs: list[Photograph]) -> list[dict]:
    """Train, unless that is done, and measure: rows of `IMAGE_COLUMNS`."""
    folder = Path(settings.runs) / settings.model_name / str(settings.exp_version)
    if not any(folder.glob("ckpts/*/*.safetensors")):
        code = train(settings, Team(), kept_latents(settings, Path(settings.runs)))
        if code:
            raise SystemExit(code)
    path = next(folder.glob("ckpts/*/*.safetensors"), None)
    if path is None:
        raise DataError(f"{folder} holds no checkpoint: the training was stopped; repeat it.")
    codec = checkpoint.load(path)
    run = {"lmbda": f"{job.lmbda:g}", "steps": job.steps, "seed": job.seed, "prior": job.prior}
    curve = tables.read(folder / "curve.csv")
    learned = [p for name, p in codec.named_parameters() if name[:4] not in ("g_a.", "g_s.")]
    validated = [row["val_bpp"] for row in curve if row["val_bpp"]]
    summary = {
        "held_out_bpp": validated[-1] if validated else "",
        "parameters": sum(p.numel() for p in learned),
    }
    return [{**run, **row, **summary} for row in measure(codec, job.lmbda, photographs)]


def summarise(rows: list[dict]) -> list[dict]:
    """Means over the images of every run, beside those of the scale hyperprior of its kind."""
    runs: dict[tuple, list[dict]] = {}
    for row in rows:
        runs.setdefault(tuple(str(row[k]) for k in COLUMNS[:4]), []).append(row)
    table = []
    for key, images in runs.items():
        row = dict(zip(COLUMNS, key, strict=False))
        row |= {name: images[0][name] for name in COLUMNS[-2:]}
        row["images"] = len(images)
        row["bpp"] = f"{statistics.fmean(float(r['bpp']) for r in images):.5f}"
        row["psnr"] = f"{statistics.fmean(float(r['psnr']) for r in images):.3f}"
        base = {r["image"]: r for r in runs.get((*key[:3], BASE), [])}
        if len(base) == len(images):
            pairs = [(r, base[r["image"]]) for r in images]
            change = [100 * (int(a["bytes"]) / int(b["bytes"]) - 1) for a, b in pairs]
            mean, low, high = mean_interval(change)
            row["rate_against_scale_percent"] = f"{mean:.2f}"
            row["low_percent"], row["high_percent"] = f"{low:.2f}", f"{high:.2f}"
            difference = [float(a["psnr"]) - float(b["psnr"]) for a, b in pairs]
            row["psnr_against_scale_db"] = f"{statistics.fmean(difference):.3f}"
        table.append({name: row.get(name, "") for name in COLUMNS})
    return table


def run(options: argparse.Namespace) -> int:
    """All jobs that have no rows yet, one after the other."""
    importlib.import_module(MEAN_SCALE)  # registers it, also where the first jobs are done
    photographs = open_photographs(options.kodak)
    path = options.outdir / "per_image" / "priors.csv"
    columns = (*IMAGE_COLUMNS, *COLUMNS[-2:])
    rows = tables.read(path, columns) if path.is_file() else []
    for job in JOBS:
        key = [f"{job.lmbda:g}", str(job.steps), str(job.seed), job.prior]
        if any([str(row[k]) for k in COLUMNS[:4]] == key for row in rows):
            continue
        settings = job.settings(options.dataset, options.runs)
        rows += run_job(job, settings, photographs)
        tables.write(path, rows, columns)
        tables.write(options.outdir / "priors.csv", summarise(rows), COLUMNS)
        print(f"{job}: wrote {path}", flush=True)
    return 0


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", required=True, help="folder of training photographs")
    add("--kodak", type=Path, help="folder of test images; none: the built-in photographs")
    add("--runs", type=Path, default=Path("runs/priors"), help="states, weights and kept latents")
    parser.set_defaults(outdir=Path("outputs/priors"))
