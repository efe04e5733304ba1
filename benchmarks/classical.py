"""Classical codecs measured with the study's metrics, from files that were really written.

    python -m benchmarks classical --dataset_path data/kodak --record   # the study's
    python -m benchmarks classical --codecs JPEG WebP     # on the built-in photographs
    python -m benchmarks classical --compare --record     # with the published points

The codecs are those of `benchmarks/codecs.py`; one whose programs are not there is skipped with a
line. Every row of classical.csv is the mean over the images at one quality; bits are those of the
whole file. Rows of other codecs on the same images stay.
--compare measures nothing: it sets <resultdir>/classical.csv beside CompressAI's published
points, which are for the Kodak images, and writes classical_agreement.csv.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.codecs import Classical, codecs
from benchmarks.records import print_table, write_csv
from evaluation.curves import classical_curve, compare, reference_curve
from evaluation.metrics import ms_ssim, psnr
from evaluation.photographs import dataset_name, is_kodak, open_photographs
from evaluation.results import STATISTICS
from evaluation.tables import Row, number_or_nan, read
from models.errors import DataError

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
        "num_pixels": count, "bits": bits, "bpp": bits / count,
        "psnr": psnr(pixels, decoded), "ms_ssim": ms_ssim(pixels, decoded),
        "time(enc)": encoded - start, "time(dec)": done - encoded,
    }  # fmt: skip


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
            about = {"images": str(len(images)), "dataset": dataset, "settings": codec.settings}
            yield {"codec": codec.name, "quality": str(quality), **row, **about}


def agreement(folder: Path) -> list[dict[str, str]]:
    """Our <folder>/classical.csv beside the published points, as rows of `AGREEMENT_COLUMNS`.

    Points are matched where the published grid of qualities is known; the BD-rate is that of
    our curve against the published one. DataError for a file that cannot be read so.
    """
    mine, theirs = (
        read(folder / file, {"codec": str, point: int} | dict.fromkeys(columns, number_or_nan))
        for file, point, columns in (
            ("classical.csv", "quality", ("bpp", "psnr", "ms_ssim")),
            ("reference/kodak_rd.csv", "point", ("bpp", "psnr_rgb_db", "ms_ssim_rgb")),
        )
    )
    rows = []
    for codec, step in PUBLISHED_STEP.items():
        row = dict.fromkeys(AGREEMENT_COLUMNS, "") | {"codec": codec}
        published = {step * r["point"]: r for r in theirs if r["codec"] == codec}
        own = {r["quality"]: r for r in mine if r["codec"] == codec}
        pairs = [(r, published[quality]) for quality, r in own.items() if quality in published]
        row |= _differences(pairs) if pairs else {}
        try:
            delta = compare(classical_curve(codec, folder), reference_curve(codec, folder), "psnr")
        except DataError as error:
            delta = {"reason": str(error)}
        rows.append(row | {key: value for key, value in delta.items() if key in AGREEMENT_COLUMNS})
    return rows


def _differences(pairs: list[tuple[Row, Row]]) -> dict[str, str]:
    """The largest differences over matched points, ours minus theirs, with their signs."""
    rate = max(((a["bpp"] / b["bpp"] - 1) * 100 for a, b in pairs), key=abs)
    distortion = max((a["psnr"] - b["psnr_rgb_db"] for a, b in pairs), key=abs)
    similarity = max((a["ms_ssim"] - b["ms_ssim_rgb"] for a, b in pairs), key=abs)
    cells = (str(len(pairs)), f"{rate:.4f}", f"{distortion:.4f}", f"{similarity:.6f}")
    return dict(zip(AGREEMENT_COLUMNS[1:5], cells, strict=True))


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
    rows = read(out, COLUMNS) if out.exists() else []
    for other in {row["dataset"] for row in rows} - {dataset}:
        raise DataError(f"{out} holds results on {other}, not on {dataset}: name another --outdir.")
    return rows


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="PATH",
        help="folder of images, or one image (default: built-in photographs)")  # fmt: skip
    add("--codecs", nargs="+", choices=list(codecs()), default=list(codecs()))
    add("--compare", action="store_true", help="compare with published points")
    add("--resultdir", type=Path, default=STATISTICS, metavar="DIR",
        help="classical.csv and reference/ of --compare (default: %(default)s)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Measure, or compare. DataError or ImageError for what goes wrong."""
    if options.compare:
        rows = agreement(options.resultdir)
        print_table(rows)
        write_csv(options.outdir / "classical_agreement.csv", rows)
        return 0
    photographs = open_photographs(options.dataset_path)
    dataset = "kodak" if is_kodak(photographs) else dataset_name(options.dataset_path)
    out, chosen = options.outdir / "classical.csv", _choose(options.codecs)
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
    places = {name: place for place, name in enumerate(codecs())}
    rows.sort(key=lambda row: places.get(row["codec"], len(places)))  # qualities stay in order
    write_csv(out, rows)
    return 0
