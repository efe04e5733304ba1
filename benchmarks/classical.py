"""Classical codecs measured with the study's metrics, from files that were really written.

Every row of classical.csv is the mean over the images at one quality of a codec that comes with
Pillow; bits are those of the whole file.
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

from evaluation.metrics import ms_ssim, psnr
from evaluation.photographs import dataset_name, is_kodak, open_photographs
from evaluation.tables import read
from models.cli import Progress
from models.errors import DataError


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
        Image.fromarray(pixels).save(file, self.name, **self.options(quality))
        return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The image in a file, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def codecs() -> dict[str, Classical]:
    """All of them by name."""
    libjpeg, webp, avif = (f"{k} {features.version(k)}" for k in ("libjpeg_turbo", "webp", "avif"))
    aom = AvifImagePlugin.get_codec_version("aom") if features.check("avif") else None
    listed = (
        Classical(
            "JPEG", range(5, 100, 5), lambda q: {"quality": q, "subsampling": "4:2:0"},
            f"{libjpeg}, 4:2:0, default Huffman tables",
        ),
        Classical(  # without mct=1 Pillow codes R, G and B independently, at a cost of 3 to 6 dB
            "JPEG2000", (10, 15, 20, 25, 30, 40, 50, *range(70, 200, 20)),
            lambda rate: {"quality_mode": "rates", "quality_layers": [rate], "irreversible": True,
                          "mct": 1},
            f"OpenJPEG {features.version('jpg_2000')}, 4:4:4 ICT, 9/7 wavelet, "
            "quality is the compression ratio",
        ),
        Classical(
            "WebP", range(5, 100, 5), lambda q: {"quality": q, "method": 4},
            f"lib{webp}, lossy 4:2:0, method 4",
        ),
        Classical(
            "AVIF", range(20, 100, 10),
            lambda q: {"quality": q, "speed": 6, "subsampling": "4:2:0", "codec": "aom",
                       "max_threads": 1},
            f"lib{avif}, aom {aom}, 4:2:0, speed 6, 1 thread",
        ),
    )  # fmt: skip
    return {codec.name: codec for codec in listed}


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
    """A row of classical.csv: the mean over images."""
    values = [measure(codec, quality, pixels) for pixels in images]
    means = {key: fmean(value[key] for value in values) for key in values[0]}
    row = {key: "" if math.isnan(mean) else f"{mean:.6f}" for key, mean in means.items()}
    row |= {key: f"{means[key]:.1f}" for key in ("num_pixels", "bits")}
    settings = f"Pillow {PIL.__version__}, {codec.settings}"
    about = {"images": str(len(images)), "dataset": dataset, "settings": settings}
    return {"codec": codec.name, "quality": str(quality), **row, **about}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset_path", type=Path, metavar="PATH",
        help="folder of images, or one image (default: built-in photographs)")  # fmt: skip


def run(options: argparse.Namespace) -> list[dict]:
    """A row for each codec and quality. DataError where results on other images would be lost."""
    photographs = open_photographs(options.dataset_path)
    dataset = "kodak" if is_kodak(photographs) else dataset_name(options.dataset_path)
    path = options.outdir / "classical.csv"
    if path.exists() and (stored := read(path, ("dataset",))[0]["dataset"]) != dataset:
        raise DataError(f"{path} holds results on {stored}, not on {dataset}: name an --outdir.")
    images = [photograph.read() for photograph in photographs]
    pairs = [(codec, quality) for codec in codecs().values() for quality in codec.qualities]
    rows = []
    with Progress(f"{len(images)} images of {dataset}", len(pairs), "quality") as progress:
        for codec, quality in pairs:
            rows.append(mean_row(codec, quality, images, dataset))
            progress.step()
    return rows
