"""Classical codecs measured with the study's metrics, from files that were really written.

    python -m benchmarks classical --dataset_path data/kodak --record   # the study's
    python -m benchmarks classical --codecs JPEG WebP     # on the built-in photographs

Every row of classical.csv is the mean over the images at one quality of a codec that comes with
Pillow; bits are those of the whole file. Rows of other codecs on the same images stay.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.codecs import Classical, codecs, decode
from benchmarks.records import write_csv
from evaluation.metrics import ms_ssim, psnr
from evaluation.photographs import dataset_name, is_kodak, open_photographs
from evaluation.tables import read
from models.errors import DataError

COLUMNS = (
    "codec", "quality", "num_pixels", "bits", "bpp", "psnr", "ms_ssim", "time(enc)", "time(dec)",
    "images", "dataset", "settings",
)  # fmt: skip


def measure(codec: Classical, quality: int, pixels: np.ndarray) -> dict[str, float]:
    """Code and decode one image; pixels, bits of the file, bpp, metrics, seconds."""
    start = time.perf_counter()
    data = codec.encode(pixels, quality)
    encoded = time.perf_counter()
    decoded = decode(data)
    done = time.perf_counter()
    count, bits = pixels.shape[0] * pixels.shape[1], 8 * len(data)
    return {
        "num_pixels": count, "bits": bits, "bpp": bits / count,
        "psnr": psnr(pixels, decoded), "ms_ssim": ms_ssim(pixels, decoded),
        "time(enc)": encoded - start, "time(dec)": done - encoded,
    }  # fmt: skip


def mean_row(codec: Classical, quality: int, images: list[np.ndarray], dataset: str) -> dict:
    """A row of `COLUMNS`: the mean over images."""
    values = [measure(codec, quality, pixels) for pixels in images]
    means = {key: fmean(value[key] for value in values) for key in values[0]}
    row = {key: "" if math.isnan(mean) else f"{mean:.6f}" for key, mean in means.items()}
    row |= {key: f"{means[key]:.1f}" for key in ("num_pixels", "bits")}
    about = {"images": str(len(images)), "dataset": dataset, "settings": codec.settings}
    return {"codec": codec.name, "quality": str(quality), **row, **about}


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="PATH",
        help="folder of images, or one image (default: built-in photographs)")  # fmt: skip
    add("--codecs", nargs="+", choices=list(codecs()), default=list(codecs()))


def run(options: argparse.Namespace) -> int:
    """Measure. DataError or ImageError for what goes wrong."""
    photographs = open_photographs(options.dataset_path)
    dataset = "kodak" if is_kodak(photographs) else dataset_name(options.dataset_path)
    out = options.outdir / "classical.csv"
    stored = read(out, COLUMNS) if out.exists() else []
    for other in {row["dataset"] for row in stored} - {dataset}:
        raise DataError(f"{out} holds results on {other}, not on {dataset}: name another --outdir.")
    print(f"{len(photographs)} images of {dataset}")
    images = [photograph.read() for photograph in photographs]
    rows = []
    for name, codec in codecs().items():
        if name not in options.codecs:
            rows += [row for row in stored if row["codec"] == name]
            continue
        for quality in codec.qualities:
            row = mean_row(codec, quality, images, dataset)
            print(
                f"{name:8} quality {quality:>3}  {float(row['bpp']):7.4f} bpp  "
                f"{float(row['psnr']):7.4f} dB  MS-SSIM {row['ms_ssim'] or 'unknown'}",
                flush=True,
            )
            rows.append(row)
    write_csv(out, rows)
    return 0
