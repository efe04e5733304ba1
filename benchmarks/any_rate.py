"""Any rate by gains: curves from four checkpoints and from one; how near files come to a size.

    python -m benchmarks any_rate --dataset_path data/kodak --record
    python -m benchmarks any_rate --dataset_path data/kodak --times     # an otherwise idle machine

any_rate.csv: rate and quality at 13 lambdas, the four trained and three between each two, from the
checkpoint that `models.rates` takes, and all of them from that of 0.013 alone. `loss` is the mean
over the images of lambda * MSE + bpp; `loss_percent` how far it is above the geometric mean, by the
logarithm of lambda, of the losses of the two checkpoints around. any_size.csv: the sizes of files
that aim at one, as `codec.py --bpp` does, in percent of it. Files are decoded again, and errors are
those of the decoder's 8-bit pixels. Rows of models that a run leaves out stay.

With --times instead any_rate_times.csv: seconds of whole processes, with and without --bpp.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.records import number, print_table, write_beside, write_csv
from benchmarks.speed import alternate, spread
from evaluation.photographs import Photograph, open_photographs
from evaluation.tables import Row
from models import canonical_name, checkpoint, rates, search
from models.cli import Progress
from models.images import to_tensor
from models.presets import STUDIED, short

STEPS = 4  # from one trained lambda to the next
TARGETS = (0.3, 0.5, 0.8)  # bits per pixel
Files = dict[tuple[float, float], list[search.Coded]]  # by the checkpoint's lambda and that meant


def lambdas(trained: Sequence[float]) -> list[float]:
    """Those trained, and between each two as many as make `STEPS` equal ratios."""
    between = [
        low * (high / low) ** (step / STEPS)
        for low, high in zip(trained, trained[1:], strict=False)
        for step in range(STEPS)
    ]
    return [*between, trained[-1]]


def code(
    paths: dict[float, Path], files: Files, photographs: Sequence[Photograph],
    step: Callable[[], None],
) -> None:  # fmt: skip
    """Add to each list of `files` those of the photographs, decoded."""
    for own, path in paths.items():
        model = checkpoint.load(path)
        for photograph in photographs:
            x = to_tensor(photograph.read())
            latents = search.analysis(model, x)
            for (source, lmbda), coded in files.items():
                if source == own:
                    coded.append(search.code(model, x, latents, math.sqrt(lmbda / own)))
                    step()


def curve(model: str, checkpoints: int, sources: dict[float, float], files: Files) -> list[Row]:
    """Rows of any_rate.csv, one for each lambda; `sources` are their checkpoints' lambdas."""
    rows = []
    losses = {key: fmean(key[1] * c.mse + c.bpp for c in coded) for key, coded in files.items()}
    trained = [own for own, lmbda in files if own == lmbda]
    for lmbda, own in sources.items():
        coded, loss = files[own, lmbda], losses[own, lmbda]
        low, high = max(v for v in trained if v <= lmbda), min(v for v in trained if v >= lmbda)
        part = math.log(lmbda / low) / math.log(high / low) if low < high else 0.0
        expected = losses[low, low] ** (1 - part) * losses[high, high] ** part
        rows.append({
            "model": model, "checkpoints": str(checkpoints), "lmbda": number(lmbda),
            "checkpoint": number(own), "gain": f"{math.sqrt(lmbda / own):.4f}",
            "images": len(coded), "bpp": f"{fmean(c.bpp for c in coded):.6f}",
            "psnr": f"{fmean(c.psnr for c in coded):.5f}", "loss": f"{loss:.6f}",
            "loss_percent": f"{100 * (loss / expected - 1):.3f}",
        })  # fmt: skip
    return rows


def sizes(
    model: str, paths: dict[float, Path], photographs: Sequence[Photograph],
    step: Callable[[], None],
) -> list[Row]:  # fmt: skip
    """Rows of any_size.csv, one for each target. UsageError if a file cannot be so small."""
    load = lru_cache(4)(lambda lmbda: checkpoint.load(paths[lmbda]))
    rows = []
    for target in TARGETS:
        percent = []
        for photograph in photographs:
            most = math.floor(target * photograph.width * photograph.height / 8)
            x = to_tensor(photograph.read())
            _, data = rates.fit(load, list(paths), x, rates.Aim(most))
            percent.append(100 * len(data) / most)
            step()
        rows.append({
            "model": model, "target_bpp": target, "images": len(percent),
            "least_percent": f"{min(percent):.3f}", "mean_percent": f"{fmean(percent):.3f}",
        })  # fmt: skip
    return rows


def times(model: str, options: argparse.Namespace, step: Callable[[], None]) -> list[Row]:
    """Rows of any_rate_times.csv: `codec.py compress` of an image, with and without --bpp."""
    image = open_photographs(options.dataset_path)[0].path
    lmbda = list(checkpoint.by_lambda(model, options.ckpt_dir))[1]

    def compress(*flags: Any) -> float:
        with tempfile.TemporaryDirectory() as folder:
            words = ["codec.py", "compress", image, Path(folder, "a.lic"), "--model_name", model]
            words += ["--ckpt_dir", options.ckpt_dir, *flags]
            started = time.perf_counter()
            subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)
            return time.perf_counter() - started

    tasks = {f"--lmbda {lmbda}": partial(compress, "--lmbda", lmbda)}
    tasks |= {f"--bpp {target}": partial(compress, "--bpp", target) for target in TARGETS}
    seconds = alternate(tasks, options.rounds, step)
    plain = median(next(iter(seconds.values())))
    return [
        {"model": model, "flags": flags, **spread(own), "over_plain": number(median(own) / plain)}
        for flags, own in seconds.items()
    ]


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="DIR", help="test images; none: built-in photographs")
    add("--every", type=int, default=1, metavar="K", help="take each K-th image (default: all)")
    add("--models", nargs="+", type=canonical_name, default=list(STUDIED), metavar="NAME",
        help="default: all four")  # fmt: skip
    add("--ckpt_dir", type=Path, default=checkpoint.STUDY, metavar="DIR",
        help="folder of the checkpoints (default: %(default)s)")  # fmt: skip
    add("--times", action="store_true", help="seconds of processes, for the first image")
    add("--rounds", type=int, default=5, metavar="N", help="of --times (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Measure model after model. CheckpointError or ImageError for what is missing."""
    if options.times:
        rows: list[Row] = []
        runs = len(options.models) * (options.rounds + 1) * (1 + len(TARGETS))
        with Progress("times", runs, "process") as progress:
            for model in options.models:
                rows += times(model, options, progress.step)
        print_table(rows)
        write_csv(options.outdir / "any_rate_times.csv", rows, "cpu")
        return 0
    photographs = open_photographs(options.dataset_path)[:: max(options.every, 1)]
    for model in options.models:
        own = checkpoint.by_lambda(model, options.ckpt_dir)
        paths = {lmbda: metadata["file"] for lmbda, metadata in own.items()}
        trained = list(paths)
        four = {lmbda: rates.nearest(trained, lmbda) for lmbda in lambdas(trained)}
        one = dict.fromkeys(four, trained[1])
        files: Files = {(own, lmbda): [] for part in (four, one) for lmbda, own in part.items()}
        count = (len(files) + len(TARGETS)) * len(photographs)
        with Progress(short(model), count, "file") as progress:
            code(paths, files, photographs, progress.step)
            near = sizes(model, paths, photographs, progress.step)
        rows = [*curve(model, len(trained), four, files), *curve(model, 1, one, files)]
        print_table(rows)
        print_table(near)
        write_beside(options.outdir / "any_size.csv", near, ("model",))
        write_beside(options.outdir / "any_rate.csv", rows, ("model",))
    return 0
