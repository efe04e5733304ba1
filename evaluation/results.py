"""Results of an evaluation: one row per image, their means, and CompressAI's JSON.

    <folder>/per_image/<name>.csv    lmbda,image,width,height,bits,bpp,psnr,ms_ssim,...
    <folder>/<name>.csv              lmbda,num_pixels,bits,bpp,psnr,time(enc),time(dec),ms_ssim

The means are always computed from the first file, so the two cannot disagree. Bits are eight
times the size of a file, PSNR is in dB, times are in seconds. An image too small for MS-SSIM has an
empty cell, and so has a mean that would be one of fewer images than the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation import tables
from evaluation.metrics import ms_ssim_db
from evaluation.tables import Kind, Row, number, number_or_nan
from models.errors import DataError, UsageError
from models.files import locked
from models.presets import digits

COLUMNS = ("lmbda", "num_pixels", "bits", "bpp", "psnr", "time(enc)", "time(dec)", "ms_ssim")
IMAGE_COLUMNS: dict[str, Kind] = {
    "lmbda": number, "image": str, "width": int, "height": int, "bits": int, "bpp": number,
    "psnr": float,  # inf where nothing is lost
    "ms_ssim": number_or_nan, "estimate_bpp": number, "time(enc)": number, "time(dec)": number,
}  # fmt: skip
DECIMALS = {"bpp": 6, "psnr": 5, "ms_ssim": 6, "estimate_bpp": 6, "time(enc)": 4, "time(dec)": 4}

STATISTICS = Path("statistics")  # the study's results, which the report is made of
OUTPUTS = Path("outputs")


def means(rows: Sequence[Row]) -> list[Row]:
    """One row per lambda, lowest first, of means over its images; nan for MS-SSIM unless all have
    it."""
    result = []
    for lmbda in sorted({row["lmbda"] for row in rows}):
        at = [row for row in rows if row["lmbda"] == lmbda]
        mean = {"lmbda": lmbda, "num_pixels": fmean(row["width"] * row["height"] for row in at)}
        result.append(mean | {key: fmean(row[key] for row in at) for key in ("bits", *DECIMALS)})
    return result


class Results:
    """The two CSV files of a model in a folder.

    Rows of lambdas that a run does not test are kept, provided that they were measured on
    the same images: means over different images make no curve.
    """

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.summary = folder / f"{name}.csv"
        self.per_image = folder / "per_image" / f"{name}.csv"

    def rows(self) -> list[Row]:
        """What is stored, in its order; UsageError if it cannot be understood."""
        if not self.per_image.exists():
            if self.summary.exists():
                raise UsageError(
                    f"{self.summary} comes without {self.per_image}, so it is not known what it "
                    "was measured on: remove it, or choose another --resultdir."
                )
            return []
        try:
            return tables.read(self.per_image, IMAGE_COLUMNS)
        except DataError as error:
            raise UsageError(f"{error} Remove it, or choose another --resultdir.") from error

    def check(self, images: set[tuple[str, int, int]]) -> list[Row]:
        """`rows()`; UsageError if they are of other images than these (name, width, height)."""
        rows = self.rows()
        if rows and (stored := images_of(rows)) != images:
            raise UsageError(
                f"{self.summary} holds results on {len(stored)} other images (such as "
                f"{min(stored)[0]}), not on these {len(images)}: choose another --resultdir, "
                f"or remove it together with {self.per_image}."
            )
        return rows

    def merge(self, new: Sequence[Row]) -> list[Row]:
        """Replace the rows of the new rows' lambdas, write both files, return all rows."""
        with locked(self.per_image.parent):  # another run may add its lambdas to the same files
            tested = {row["lmbda"] for row in new}
            others = [row for row in self.check(images_of(new)) if row["lmbda"] not in tested]
            rows = sorted([*others, *new], key=lambda row: row["lmbda"])
            cells = [{c: _cell(c, row[c]) for c in IMAGE_COLUMNS} for row in rows]
            tables.write(self.per_image, cells, IMAGE_COLUMNS)
            rows = self.rows()
            cells = [{c: _cell(c, mean[c]) for c in COLUMNS} for mean in means(rows)]
            tables.write(self.summary, cells, COLUMNS)
        return rows


def images_of(rows: Iterable[Row]) -> set[tuple[str, int, int]]:
    """(name, width, height) of the images of rows."""
    return {(row["image"], row["width"], row["height"]) for row in rows}


def _cell(column: str, value: Any) -> Any:
    """As it is written: columns with their decimals, whole numbers without any."""
    if not isinstance(value, float) or math.isnan(value):
        return value
    if column in DECIMALS:
        return f"{value:.{DECIMALS[column]}f}"
    return digits(value) if column == "lmbda" else f"{value:.2f}".rstrip("0").removesuffix(".")


def table(named: Sequence[tuple[str, Row]]) -> str:
    """The means of named models as an aligned table for a reader; MS-SSIM also in dB."""
    rows = []
    for name, mean in named:
        similarity, known = mean["ms_ssim"], not math.isnan(mean["ms_ssim"])
        rows.append({
            "model": name, "lambda": digits(mean["lmbda"]), "bytes": f"{mean['bits'] / 8:.0f}",
            "bpp": f"{mean['bpp']:.4f}", "estimate": f"{mean['estimate_bpp']:.4f}",
            "PSNR (dB)": f"{mean['psnr']:.3f}",
            "MS-SSIM": f"{similarity:.5f}" if known else "-",
            "(dB)": f"{ms_ssim_db(similarity):.3f}" if known else "-",
            "enc (s)": f"{mean['time(enc)']:.3f}", "dec (s)": f"{mean['time(dec)']:.3f}",
        })  # fmt: skip
    return tables.aligned(rows)


def compressai_json(name: str, description: str, points: Sequence[Row]) -> str:
    """What `compressai.utils.eval_model` prints and `compressai.utils.plot` draws, of `means`.

    "ms-ssim-rgb" is left out where an image was too small for it, since JSON has no nan.
    """
    points = sorted(points, key=lambda mean: mean["bpp"])
    columns = {"psnr-rgb": "psnr", "ms-ssim-rgb": "ms_ssim", "bpp": "bpp",
               "encoding_time": "time(enc)", "decoding_time": "time(dec)"}  # fmt: skip
    results = {theirs: [mean[ours] for mean in points] for theirs, ours in columns.items()}
    if any(map(math.isnan, results["ms-ssim-rgb"])):
        del results["ms-ssim-rgb"]
    return json.dumps({"name": name, "description": description, "results": results}, indent=2)
