"""Results of an evaluation: one row per image, their means, and CompressAI's JSON.

    <folder>/per_image/<name>.csv    lmbda,image,width,height,bits,bpp,psnr,ms_ssim,...
    <folder>/<name>.csv              lmbda,num_pixels,bits,bpp,psnr,time(enc),time(dec),ms_ssim

The means are always computed from the first file, so the two cannot disagree. Bits are eight
times the size of a file, PSNR is in dB, times are in seconds, an empty MS-SSIM is one of an
image too small for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from evaluation.metrics import ms_ssim_db
from evaluation.tables import read
from models.errors import DataError, UsageError
from models.files import csv_text, locked, write_text

COLUMNS = ("lmbda", "num_pixels", "bits", "bpp", "psnr", "time(enc)", "time(dec)", "ms_ssim")

# Column of the table of images -> (field of Row, its type, decimals)
IMAGE_COLUMNS: dict[str, tuple[str, type, int | None]] = {
    "lmbda": ("lmbda", float, None),
    "image": ("image", str, None),
    "width": ("width", int, None),
    "height": ("height", int, None),
    "bits": ("bits", int, None),
    "bpp": ("bpp", float, 6),
    "psnr": ("psnr", float, 5),
    "ms_ssim": ("ms_ssim", float, 6),
    "estimate_bpp": ("estimate_bpp", float, 6),
    "time(enc)": ("encoding", float, 4),
    "time(dec)": ("decoding", float, 4),
}


STATISTICS = Path("statistics")  # the study's results, which the report is made of
OUTPUTS = Path("outputs")


def result_folder(asked: Path | None, study: bool, other: Path = OUTPUTS) -> Path:
    """Where results go: the folder that was asked for; if none was, those of the study, on its
    own data and weights, to statistics/, and all others, which must not replace them, to `other`.
    """
    return asked or (STATISTICS if study else other)


@dataclass(frozen=True)
class Figures:
    """What is measured; ms_ssim is nan for an image too small for it."""

    bits: float
    bpp: float
    psnr: float
    ms_ssim: float
    estimate_bpp: float
    encoding: float
    decoding: float


@dataclass(frozen=True)
class Row(Figures):
    """One image at one operating point."""

    lmbda: float
    image: str
    width: int
    height: int


@dataclass(frozen=True)
class Mean(Figures):
    """Means over the images of one operating point."""

    lmbda: float
    images: int
    num_pixels: float


def means(rows: Sequence[Row]) -> list[Mean]:
    """One `Mean` per lambda, lowest first; of MS-SSIM over the images that have one."""
    found = []
    for lmbda in sorted({row.lmbda for row in rows}):
        at = [row for row in rows if row.lmbda == lmbda]
        figures = {f.name: _mean(getattr(row, f.name) for row in at) for f in fields(Figures)}
        pixels = _mean(row.width * row.height for row in at)
        found.append(Mean(lmbda=lmbda, images=len(at), num_pixels=pixels, **figures))
    return found


def _mean(values: Iterable[float]) -> float:
    found = [value for value in values if not math.isnan(value)]
    return math.fsum(found) / len(found) if found else math.nan


class Results:
    """The two CSV files of a model in a folder.

    Rows of lambdas that a run does not test are kept, provided that they were measured on
    the same images: means over different images make no curve.
    """

    def __init__(self, folder: Path, name: str):
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
            records = read(self.per_image, list(IMAGE_COLUMNS))
            return [_parse(record) for record in records]
        except (DataError, TypeError, ValueError) as error:
            raise UsageError(
                f"{self.per_image} is not a table of results ({error}): remove it, or choose "
                "another --resultdir."
            ) from error

    def check(self, images: set[tuple[str, int, int]]) -> list[Row]:
        """`rows()`; UsageError if they are of other images than these (name, width, height)."""
        rows = self.rows()
        for lmbda in {row.lmbda for row in rows}:
            stored = {(r.image, r.width, r.height) for r in rows if r.lmbda == lmbda}
            if stored != images:
                raise UsageError(
                    f"{self.summary} holds results on {len(stored)} other images (such as "
                    f"{min(stored)[0]}), not on these {len(images)}: choose another --resultdir, "
                    f"or remove it together with {self.per_image}."
                )
        return rows

    def merge(self, new: Sequence[Row]) -> list[Row]:
        """Replace the rows of the new rows' lambdas, write both files, return all rows."""
        images = {(row.image, row.width, row.height) for row in new}
        with locked(self.per_image.parent):  # another run may add its lambdas to the same files
            tested = {f"{row.lmbda:g}" for row in new}
            kept = [row for row in self.check(images) if f"{row.lmbda:g}" not in tested]
            records = [_format(row) for row in sorted([*kept, *new], key=lambda r: r.lmbda)]
            rows = [_parse(record) for record in records]
            write_text(self.per_image, csv_text(records, IMAGE_COLUMNS))
            write_text(self.summary, csv_text([_format_mean(m) for m in means(rows)], COLUMNS))
        return rows


def _parse(record: dict[str, str]) -> Row:
    values = {}
    for column, (name, kind, _) in IMAGE_COLUMNS.items():
        values[name] = kind("nan" if column == "ms_ssim" and not record[column] else record[column])
    return Row(**values)


def _format(row: Row) -> dict[str, str]:
    record = {}
    for column, (name, _, decimals) in IMAGE_COLUMNS.items():
        record[column] = _number(getattr(row, name), decimals)
    return record


def _format_mean(mean: Mean) -> dict[str, str]:
    return {
        "lmbda": f"{mean.lmbda:g}",
        "num_pixels": _short(mean.num_pixels),
        "bits": _short(mean.bits),
        "bpp": _number(mean.bpp, 6),
        "psnr": _number(mean.psnr, 5),
        "time(enc)": _number(mean.encoding, 4),
        "time(dec)": _number(mean.decoding, 4),
        "ms_ssim": _number(mean.ms_ssim, 6),
    }


def _number(value: float | int | str, decimals: int | None) -> str:
    if isinstance(value, float) and math.isnan(value):
        return ""
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    """At most two decimals, none where the value is whole."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def table(found: Sequence[tuple[str, Mean]]) -> str:
    """The means of named models as an aligned table for a reader; MS-SSIM also in dB."""
    header = "model,lambda,bytes,bpp,estimate,PSNR (dB),MS-SSIM,(dB),enc (s),dec (s)"
    lines = [tuple(header.split(","))]
    for name, m in found:
        similarity = ("-", "-")
        if not math.isnan(m.ms_ssim):
            similarity = (f"{m.ms_ssim:.5f}", f"{ms_ssim_db(m.ms_ssim):.3f}")
        rates = (f"{m.bits / 8:.0f}", f"{m.bpp:.4f}", f"{m.estimate_bpp:.4f}")
        times = (f"{m.encoding:.3f}", f"{m.decoding:.3f}")
        lines.append((name, f"{m.lmbda:g}", *rates, f"{m.psnr:.3f}", *similarity, *times))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def compressai_json(name: str, description: str, found: Sequence[Mean]) -> str:
    """The schema that `compressai.utils.eval_model` prints and `compressai.utils.plot` draws.

    One value per operating point, by rising rate. "ms-ssim-rgb" is left out where an image
    was too small for it, since JSON has no nan.
    """
    found = sorted(found, key=lambda m: m.bpp)
    results = {
        "psnr-rgb": [m.psnr for m in found],
        "ms-ssim-rgb": [m.ms_ssim for m in found],
        "bpp": [m.bpp for m in found],
        "encoding_time": [m.encoding for m in found],
        "decoding_time": [m.decoding for m in found],
    }
    if any(math.isnan(m.ms_ssim) for m in found):
        del results["ms-ssim-rgb"]
    return json.dumps({"name": name, "description": description, "results": results}, indent=2)
