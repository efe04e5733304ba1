"""Classical codecs measured with the study's metrics, from files that were really written.

    python -m benchmarks classical --dataset_path data/kodak --record   # the study's
    python -m benchmarks classical --codecs JPEG WebP     # on the built-in photographs

Every row of classical.csv is the mean over the images at one quality of a codec that comes with
Pillow; bits are those of the whole file. Rows of other codecs on the same images stay.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import PIL
from PIL import AvifImagePlugin, Image, features

from benchmarks.records import write_csv
from evaluation.metrics import ms_ssim, psnr
from evaluation.photographs import dataset_name, is_kodak, open_photographs
from evaluation.tables import read
from models.errors import DataError

COLUMNS = (
    "codec", "quality", "num_pixels", "bits", "bpp", "psnr", "ms_ssim", "time(enc)", "time(dec)",
    "images", "dataset", "settings",
)  # fmt: skip


@dataclass(frozen=True)
class Classical:
    """A codec at its grid of qualities. `options` are those of `Image.save` at a quality."""

    name: str
    qualities: Sequence[int]
    options: Callable[[int], dict[str, Any]]
    settings: str  # in words

    def encode(self, pixels: np.ndarray, quality: int) -> bytes:
        """The file of an image, uint8 (H, W, 3)."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format=self.name.upper(), **self.options(quality))
        return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The image in a file, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def codecs() -> dict[str, Classical]:
    """All of them by name."""
    libjpeg, webp, avif = (f"{k} {features.version(k)}" for k in ("libjpeg_turbo", "webp", "avif"))
    aom = AvifImagePlugin.get_codec_version("aom") if features.check("avif") else None
    listed = (
        ("JPEG", range(5, 100, 5), lambda q: {"quality": q, "subsampling": "4:2:0"},
         f"{libjpeg}, 4:2:0, default Huffman tables"),
        # Without mct=1 Pillow codes R, G and B independently, at a cost of 3 to 6 dB.
        ("JPEG2000", (10, 15, 20, 25, 30, 40, 50, *range(70, 200, 20)),
         lambda rate: {"quality_mode": "rates", "quality_layers": [rate], "irreversible": True,
                       "mct": 1},
         f"OpenJPEG {features.version('jpg_2000')}, 4:4:4 ICT, 9/7 wavelet, "
         "quality is the compression ratio"),
        ("WebP", range(5, 100, 5), lambda q: {"quality": q, "method": 4},
         f"lib{webp}, lossy 4:2:0, method 4"),
        ("AVIF", range(20, 100, 10),
         lambda q: {"quality": q, "speed": 6, "subsampling": "4:2:0", "codec": "aom",
                    "max_threads": 1},
         f"lib{avif}, aom {aom}, 4:2:0, speed 6, 1 thread"),
    )  # fmt: skip
    return {
        name: Classical(name, qualities, options, f"Pillow {PIL.__version__}, {settings}")
        for name, qualities, options, settings in listed
    }


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
