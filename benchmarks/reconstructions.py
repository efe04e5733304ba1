"""One photograph through every codec at one rate: numbers, and crops side by side.

    python -m benchmarks reconstructions data/kodak/kodim19.png --record   # long on a CPU

The rate is that of --bpp. Ours: of a model's checkpoints and `--effort` steps of search, the file
with the least error that is no larger (`models.rates.fit`). JPEG and WebP: the quality whose file
is nearest. Every picture comes from a real file; a model whose files are all larger is left out
and said so.

Writes reconstructions.csv and reconstructions.png, the study's into Image4md/.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

import models
from benchmarks.codecs import codecs, decode
from benchmarks.records import print_table, write_csv
from evaluation.metrics import ms_ssim, psnr
from evaluation.photographs import Photograph, open_photographs
from evaluation.plots import IMAGES, contact_sheet
from evaluation.results import STATISTICS
from models import checkpoint
from models.cli import Progress
from models.errors import CheckpointError, UsageError
from models.images import to_tensor, to_uint8
from models.presets import STUDIED, short
from models.rates import SEARCHES, Aim, fit

SIDE = 256  # of a crop
PLACES = 4  # pictures in a row of the sheet

Coded = tuple[str, str, int, np.ndarray]  # codec, its setting, bytes, pixels (H, W, 3)


def learned(pixels: np.ndarray, most: int, effort: int) -> Iterator[Coded]:
    """Our codecs' pictures from files of at most `most` bytes; prints which have none."""
    for name in STUDIED:
        try:
            trained = checkpoint.lambdas(checkpoint.find(name))
            load = partial(models.load, name)
            with Progress(short(name), SEARCHES * effort, "step") as progress:
                watch = lambda step, bar=progress: bar.step(f"{step.bpp:.3f} bpp")  # noqa: E731
                aim = Aim(most=most)
                codec, data = fit(load, trained, to_tensor(pixels), aim, effort, watch=watch)
        except (CheckpointError, UsageError) as error:
            print(f"{short(name)} is left out: {error}")
            continue
        assert codec.point is not None
        yield name, f"lambda {codec.point.lmbda:g}", len(data), to_uint8(codec.decompress([data]))


def classical(name: str, pixels: np.ndarray, size: int) -> Coded:
    """The picture of JPEG or WebP at the quality whose file is nearest to `size` bytes."""
    codec = codecs()[name]
    files = {quality: codec.encode(pixels, quality) for quality in range(1, 96)}
    quality = min(files, key=lambda q: abs(len(files[q]) - size))
    return name, f"quality {quality}", len(files[quality]), decode(files[quality])


def row_of(photograph: Photograph, coded: Coded, effort: int) -> dict[str, str]:
    """The row of the CSV for one picture."""
    name, setting, size, decoded = coded
    pixels = photograph.read()
    return {
        "image": photograph.stem,
        "codec": name,
        "setting": setting,
        "effort": str(effort) if name in STUDIED else "",
        "bpp": f"{8 * size / (photograph.width * photograph.height):.4f}",
        "psnr": f"{psnr(pixels, decoded):.3f}",
        "ms_ssim": f"{ms_ssim(pixels, decoded):.4f}",
    }


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("image", type=Path, help="a photograph, such as data/kodak/kodim19.png")
    add("--bpp", type=float, default=0.25, help="the rate of all (default: %(default)s)")
    add("--effort", type=int, default=30, help="steps of a search (default: %(default)s)")
    add("--crop", type=int, nargs=2, default=(320, 220), metavar=("TOP", "LEFT"))


def run(options: argparse.Namespace) -> int:
    """Measure, write and draw. ImageError for a photograph that cannot be read."""
    photographs = open_photographs(options.image)
    if len(photographs) > 1:
        raise UsageError(f"{options.image} holds {len(photographs)} images: name one of them.")
    (photograph,) = photographs
    pixels = photograph.read()
    most = int(options.bpp * photograph.width * photograph.height / 8)
    pictures = [*learned(pixels, most, options.effort)]
    pictures += [classical(name, pixels, most) for name in ("JPEG", "WebP")]
    rows = [row_of(photograph, coded, options.effort) for coded in pictures]
    print_table(rows)
    top, left = options.crop
    crop = np.s_[top : top + SIDE, left : left + SIDE]
    tiles = [(f"{photograph.stem}\noriginal", pixels[crop])]
    for row, (name, setting, _, decoded) in zip(rows, pictures, strict=True):
        title = f"{short(name)}, {setting}\n{row['bpp']} bpp, {float(row['psnr']):.2f} dB"
        tiles.append((title, decoded[crop]))
    write_csv(options.outdir / "reconstructions.csv", rows)
    sheet = (IMAGES if options.outdir == STATISTICS else options.outdir) / "reconstructions.png"
    contact_sheet([tiles[k : k + PLACES] for k in range(0, len(tiles), PLACES)], sheet)
    print(f"Wrote {sheet}.")
    return 0
