"""Classical codecs measured with the study's metrics, from files that were really written.

    python -m benchmarks.classical --dataset_path KODAK_FOLDER
    python -m benchmarks.classical --codecs JPEG WebP        # on the built-in photographs
    python -m benchmarks.classical --compare                 # with the published points

The codecs are those of `benchmarks/codecs.py`; one whose programs are not there is skipped with a
line. Every row of classical.csv is the mean over the images at one quality; bits are those of the
whole file. The study's file, in statistics/, is that of the 24 Kodak images; results of other
images go to outputs/.
--compare measures nothing: it sets an existing classical.csv beside CompressAI's published
points, which are for the Kodak images, and writes classical_agreement.csv.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.codecs import Classical, codecs
from evaluation.curves import classical_curve, compare, read_rows, reference_curve
from evaluation.metrics import ms_ssim, psnr
from evaluation.photographs import Photograph, dataset_name, is_kodak, open_photographs
from evaluation.results import OUTPUTS, result_folder
from models.cli import guarded
from models.errors import DataError
from models.files import csv_text, write_text

COLUMNS = (
    "codec", "quality", "num_pixels", "bits", "bpp", "psnr", "ms_ssim", "time(enc)", "time(dec)",
    "images", "dataset", "settings",
)  # fmt: skip
AGREEMENT_COLUMNS = (
    "codec", "matched_points", "max_bpp_difference_percent", "max_psnr_difference_db",
    "max_ms_ssim_difference", "bd_rate_percent", "range_low_db", "range_high_db", "reason",
)  # fmt: skip
# Our quality at point 1, 2, 3, ... of the published curve: the steps of CompressAI's grids.
# WebP agrees to the last published digit. JPEG differs by up to 0.13 dB and 0.3 % of the rate:
# libjpeg-turbo here, while the published points behave as if IJG's libjpeg 7 or later wrote
# them, which halves and doubles chroma by DCTs of two sizes. JPEG2000 there is another encoder.
PUBLISHED_STEP = {"JPEG": 5, "WebP": 5, "JPEG2000": 10}


def measure(codec: Classical, quality: int, pixels: np.ndarray) -> dict[str, float]:
    """Code and decode one image; pixels, bits of the file, bpp, metrics, seconds."""
    start = time.perf_counter()
    data = codec.encode(pixels, quality)
    encoded = time.perf_counter()
    decoded = codec.decode(data, pixels.shape[:2])
    done = time.perf_counter()
    count, bits = pixels.shape[0] * pixels.shape[1], 8 * len(data)
    return {
        "num_pixels": count,
        "bits": bits,
        "bpp": bits / count,
        "psnr": psnr(pixels, decoded),
        "ms_ssim": ms_ssim(pixels, decoded),
        "time(enc)": encoded - start,
        "time(dec)": done - encoded,
    }


def measure_all(
    chosen: list[Classical], images: list[np.ndarray], dataset: str
) -> Iterator[dict[str, str]]:
    """One row of `COLUMNS` for each codec and quality, the mean over the images."""
    for codec in chosen:
        for quality in codec.qualities:
            values = [measure(codec, quality, pixels) for pixels in images]
            means = {key: float(np.mean([value[key] for value in values])) for key in values[0]}
            row = {key: "" if math.isnan(mean) else f"{mean:.6f}" for key, mean in means.items()}
            row |= {"num_pixels": f"{means['num_pixels']:.1f}", "bits": f"{means['bits']:.1f}"}
            yield {
                "codec": codec.name, "quality": str(quality), **row, "images": str(len(images)),
                "dataset": dataset, "settings": codec.settings,
            }  # fmt: skip


def agreement(folder: Path) -> list[dict[str, str]]:
    """Our <folder>/classical.csv beside the published points, as rows of `AGREEMENT_COLUMNS`.

    Points are matched where the published grid of qualities is known; the BD-rate is that of
    our curve against the published one.
    """
    ours = read_rows(folder / "classical.csv", ("codec", "quality"))
    reference = folder / "reference" / "kodak_rd.csv"
    published = read_rows(reference, ("codec", "point"))
    rows = []
    for codec, step in PUBLISHED_STEP.items():
        row = dict.fromkeys(AGREEMENT_COLUMNS, "") | {"codec": codec}
        mine = {r["quality"]: r for r in ours if r["codec"] == codec}
        theirs = {str(step * int(r["point"])): r for r in published if r["codec"] == codec}
        pairs = [(mine[key], theirs[key]) for key in mine if key in theirs]
        try:
            delta = compare(classical_curve(codec, folder), reference_curve(codec, folder), "psnr")
        except DataError as error:
            delta = {"reason": str(error)}
        row |= {key: value for key, value in delta.items() if key in AGREEMENT_COLUMNS}
        rows.append(row | (_differences(pairs) if pairs else {}))
    return rows


def _differences(pairs: list[tuple[dict[str, str], dict[str, str]]]) -> dict[str, str]:
    """The largest differences over matched points, ours minus theirs, with their signs."""

    def largest(ours: str, theirs: str, relative: bool = False) -> float:
        numbers = [(float(a[ours] or "nan"), float(b[theirs] or "nan")) for a, b in pairs]
        return max((((a / b - 1) * 100 if relative else a - b) for a, b in numbers), key=abs)

    return {
        "matched_points": str(len(pairs)),
        "max_bpp_difference_percent": f"{largest('bpp', 'bpp', relative=True):.4f}",
        "max_psnr_difference_db": f"{largest('psnr', 'psnr_rgb_db'):.4f}",
        "max_ms_ssim_difference": f"{largest('ms_ssim', 'ms_ssim_rgb'):.6f}",
    }


def _choose(names: list[str]) -> list[Classical]:
    """The codecs that were asked for and can run; says which cannot."""
    chosen = []
    for codec in (codecs()[name] for name in names):
        if missing := codec.missing():
            print(f"Skipping {codec.name}: {' and '.join(missing)} not found on the PATH.")
        else:
            chosen.append(codec)
    if not chosen:
        raise DataError("None of the chosen codecs can run here.")
    return chosen


def _stored(out: Path, dataset: str) -> list[dict[str, str]]:
    """The rows of a file that is there; DataError if they are of another data set."""
    rows = read_rows(out, COLUMNS) if out.exists() else []
    for other in {row["dataset"] for row in rows} - {dataset}:
        raise DataError(f"{out} holds results on {other}, not on {dataset}: choose another folder.")
    return rows


def _measure_into(out: Path, names: list[str], photographs: list[Photograph], dataset: str) -> None:
    """Measure and write; rows of other codecs on the same data set in `out` are kept."""
    chosen = _choose(names)
    _stored(out, dataset)  # before hours of work
    print(f"{len(photographs)} images of {dataset}")
    rows = []
    for row in measure_all(chosen, [photograph.read() for photograph in photographs], dataset):
        print(
            f"{row['codec']:8} quality {row['quality']:>3}  {float(row['bpp']):7.4f} bpp  "
            f"{float(row['psnr']):7.4f} dB  MS-SSIM {row['ms_ssim'] or 'unknown'}",
            flush=True,
        )
        rows.append(row)
    measured = {codec.name for codec in chosen}
    rows += [row for row in _stored(out, dataset) if row["codec"] not in measured]
    rows.sort(key=lambda row: list(codecs()).index(row["codec"]))  # stable: qualities in order
    write_text(out, csv_text(rows, COLUMNS))


def run(options: argparse.Namespace) -> int:
    """Measure, or compare; raises what `guarded` turns into a line."""
    if options.compare:
        folder = result_folder(options.resultdir, study=True)
        out = folder / "classical_agreement.csv"
        text = csv_text(agreement(folder), AGREEMENT_COLUMNS)
        write_text(out, text)
        print(text, end="")
    else:
        place = options.dataset_path
        photographs = open_photographs(place)
        study = is_kodak(photographs)
        other = OUTPUTS / dataset_name(place) if place else OUTPUTS
        out = result_folder(options.resultdir, study, other) / "classical.csv"
        name = "kodak" if study else dataset_name(place)
        _measure_into(out, options.codecs, photographs, name)
    print(f"Wrote {out}.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.classical",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="PATH",
        help="folder of images, or one image (default: built-in photographs)")  # fmt: skip
    add("--codecs", nargs="+", choices=list(codecs()), default=list(codecs()))
    add("--resultdir", type=Path, metavar="DIR",
        help="folder of classical.csv (default: statistics for the 24 Kodak images and --compare, "
        "outputs for others)")  # fmt: skip
    add("--compare", action="store_true", help="compare with published points")
    options = parser.parse_args(arguments)
    return guarded("classical", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
