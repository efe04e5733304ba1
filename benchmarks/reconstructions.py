"""One photograph through every codec at one rate: numbers, and crops side by side.

    python -m benchmarks.reconstructions data/kodak/kodim19.png      # the study's; long on a CPU

The rate is that of --bpp. Ours: of a model's checkpoints and `--effort` steps of search, the file
with the least error that is no larger (`models.search.fit`). JPEG and WebP: the quality whose file
is nearest. Every picture comes from a real file; a model whose files are all larger is left out
and said so.

Writes reconstructions.csv and draws Image4md/reconstructions.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.codecs import codecs as classical_codecs
from benchmarks.records import print_table
from evaluation.metrics import ms_ssim, psnr
from evaluation.photographs import Photograph, open_photographs
from evaluation.plots import IMAGES, contact_sheet
from evaluation.results import OUTPUTS, STATISTICS
from models import checkpoint
from models.cli import Progress, guarded
from models.errors import CheckpointError, UsageError
from models.files import csv_text, write_text
from models.images import to_tensor, to_uint8
from models.presets import STUDIED, short
from models.search import TRIES, fit

SIDE = 256  # of a crop
STUDY = "kodim19", 0.25, (320, 220)  # the original's photograph and rate; upper left corner
PLACES = 4  # pictures in a row of the sheet

Found = tuple[str, str, int, np.ndarray]  # codec, its setting, bytes, pixels (H, W, 3)


def learned(pixels: np.ndarray, most: int, effort: int) -> Iterator[Found]:
    """Our codecs' pictures from files of at most `most` bytes; prints which have none."""
    for name in STUDIED:
        try:
            codecs = [checkpoint.load(path) for path in checkpoint.find(name)]
            with Progress(short(name), TRIES * effort, "step") as progress:
                watch = lambda step, bar=progress: bar.step(f"{step.bpp:.3f} bpp")  # noqa: E731
                codec, data = fit(codecs, to_tensor(pixels), most, effort, watch=watch)
        except (CheckpointError, UsageError) as error:
            print(f"{short(name)} is left out: {error}")
            continue
        assert codec.point is not None
        yield name, f"lambda {codec.point.lmbda:g}", len(data), to_uint8(codec.decompress([data]))


def classical(name: str, pixels: np.ndarray, size: int) -> Found:
    """The picture of JPEG or WebP at the quality whose file is nearest to `size` bytes."""
    codec = classical_codecs()[name]
    files = {quality: codec.encode(pixels, quality) for quality in range(1, 96)}
    quality = min(files, key=lambda q: abs(len(files[q]) - size))
    decoded = codec.decode(files[quality], pixels.shape[:2])
    return name, f"quality {quality}", len(files[quality]), decoded


def measure(photograph: Photograph, bpp: float, effort: int) -> list[tuple[dict[str, str], Found]]:
    """A row of the CSV and its picture for each codec."""
    pixels = photograph.read()
    most = int(bpp * photograph.width * photograph.height / 8)
    found = [
        *learned(pixels, most, effort),
        *(classical(c, pixels, most) for c in ("JPEG", "WebP")),
    ]
    return [
        (
            {
                "image": photograph.stem, "codec": name, "setting": setting,
                "effort": str(effort) if name in STUDIED else "",
                "bpp": f"{8 * size / (photograph.width * photograph.height):.4f}",
                "psnr": f"{psnr(pixels, decoded):.3f}",
                "ms_ssim": f"{ms_ssim(pixels, decoded):.4f}",
            },
            (name, setting, size, decoded),
        )
        for name, setting, size, decoded in found
    ]  # fmt: skip


def draw(
    photograph: Photograph, rows: list[tuple[dict[str, str], Found]], corner: tuple[int, int],
    path: Path,
) -> None:  # fmt: skip
    """The crops in rows of `PLACES`, the original first."""
    top, left = corner
    crop = np.s_[top : top + SIDE, left : left + SIDE]
    tiles = [(f"{photograph.stem}\noriginal", photograph.read()[crop])]
    for row, (name, _, _, decoded) in rows:
        title = f"{short(name)}, {row['setting']}\n{row['bpp']} bpp, {float(row['psnr']):.2f} dB"
        tiles.append((title, decoded[crop]))
    contact_sheet([tiles[k : k + PLACES] for k in range(0, len(tiles), PLACES)], path)


def run(options: argparse.Namespace) -> int:
    """Measure, write and draw; raises what `guarded` turns into a line."""
    (photograph,) = open_photographs(options.image)
    study = (photograph.stem, options.bpp, tuple(options.crop)) == STUDY
    rows = measure(photograph, options.bpp, options.effort)
    print_table([row for row, _ in rows])
    numbers = options.outdir or (STATISTICS if study else OUTPUTS)
    pictures = options.outdir or (IMAGES if study else OUTPUTS)
    table = numbers / "reconstructions.csv"
    write_text(table, csv_text([row for row, _ in rows], rows[0][0]))
    draw(photograph, rows, tuple(options.crop), pictures / "reconstructions.png")
    print(f"Wrote {table} and {pictures / 'reconstructions.png'}.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reconstructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("image", type=Path, help="a photograph, such as data/kodak/kodim19.png")
    add("--bpp", type=float, default=STUDY[1], help="the rate of all (default: %(default)s)")
    add("--effort", type=int, default=30, help="steps of a search (default: %(default)s)")
    add("--crop", type=int, nargs=2, default=list(STUDY[2]), metavar=("TOP", "LEFT"))
    add("--outdir", type=Path, metavar="DIR",
        help="default: statistics and Image4md for the study's photograph, rate and crop, "
        "else outputs")  # fmt: skip
    options = parser.parse_args(arguments)
    return guarded("reconstructions", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
