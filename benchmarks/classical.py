"""Classical codecs measured with the study's metrics, from files that were really written.

    python -m benchmarks.classical --dataset_path KODAK_FOLDER
    python -m benchmarks.classical --codecs JPEG WebP        # on the built-in photographs
    python -m benchmarks.classical --compare                 # with the published points

JPEG, JPEG2000, WebP and AVIF come with Pillow; BPG needs `bpgenc` and `bpgdec`, VVC needs
`vvencapp` and `vvdecapp` on the PATH and is skipped with a line otherwise. Every row of
classical.csv is the mean over the images at one quality; bits are those of the whole file.
Without --dataset_path the file goes to outputs/, so that results on a data set stay.
--compare measures nothing: it sets an existing classical.csv beside CompressAI's published
points, which are for the Kodak images, and writes classical_agreement.csv.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import AvifImagePlugin, Image, features

from evaluation.curves import classical_curve, compare, read_rows, reference_curve
from evaluation.metrics import ms_ssim, psnr
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


@dataclass(frozen=True)
class Classical:
    """A codec: `encode(pixels, quality) -> bytes`, `decode(bytes, (H, W)) -> pixels`.

    Pixels are uint8 arrays (H, W, 3). `needs` names the programs that must be on the PATH.
    """

    name: str
    qualities: tuple[int, ...]
    encode: Callable[[np.ndarray, int], bytes]
    decode: Callable[[bytes, tuple[int, int]], np.ndarray]
    settings: str
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """The needed programs that are not installed."""
        return [program for program in self.needs if shutil.which(program) is None]


def _pillow(
    name: str, options: Callable[[int], dict[str, Any]], grid: Iterable[int], settings: str
) -> Classical:
    """A codec inside Pillow; `options` turns a quality into the arguments of `Image.save`."""

    def encode(pixels: np.ndarray, quality: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format=name.upper(), **options(quality))
        return file.getvalue()

    def decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    return Classical(name, tuple(grid), encode, decode, f"Pillow {PIL.__version__}, {settings}")


def _run(*command: str | Path) -> None:
    """Run a program; `DataError` with the end of what it said if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-200:]
        raise DataError(f"{command[0]} failed with exit status {done.returncode}: {said}")


def _bpg_encode(pixels: np.ndarray, quality: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.png"), Path(folder, "out.bpg")
        Image.fromarray(pixels).save(source)
        _run(
            "bpgenc",
            "-q",
            str(quality),
            "-f",
            "444",
            "-c",
            "ycbcr",
            "-b",
            "8",
            "-e",
            "x265",
            "-o",
            target,
            source,
        )
        return target.read_bytes()


def _bpg_decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.bpg"), Path(folder, "out.png")
        source.write_bytes(data)
        _run("bpgdec", "-o", target, source)
        return np.asarray(Image.open(target).convert("RGB"))


# R, G, B to Y, Cb, Cr (BT.601, full range), for values in [0, 1]; chroma around 0.
_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def to_yuv420(pixels: np.ndarray) -> tuple[bytes, int, int]:
    """uint8 RGB to planar 10-bit 4:2:0 (two bytes a sample) and its even height and width.

    Odd sides are extended by a copy of the last row or column; chroma is the mean of 2x2.
    """
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    planes = np.moveaxis(even / 255 @ _TO_YCC.T, 2, 0)  # (3, H, W)
    height, width = planes.shape[1:]
    chroma = planes[1:].reshape(2, height // 2, 2, width // 2, 2).mean((2, 4)) + 512 / 1023
    parts = [np.rint(part * 1023).clip(0, 1023).ravel() for part in (planes[0], chroma)]
    return np.concatenate(parts).astype("<u2").tobytes(), height, width


def from_yuv420(data: bytes, height: int, width: int) -> np.ndarray:
    """The inverse of `to_yuv420` for even sides, chroma repeated; uint8 (height, width, 3)."""
    samples = np.frombuffer(data, "<u2").astype(float)
    if len(samples) != height * width * 3 // 2:
        raise DataError(f"The decoded picture is not one 4:2:0 frame of {width}x{height}.")
    luma = samples[: height * width].reshape(1, height, width) / 1023
    chroma = (samples[height * width :].reshape(2, height // 2, width // 2) - 512) / 1023
    planes = np.concatenate([luma, chroma.repeat(2, 1).repeat(2, 2)])
    rgb = np.moveaxis(planes, 0, 2) @ np.linalg.inv(_TO_YCC).T
    return np.rint(rgb * 255).clip(0, 255).astype(np.uint8)


def _vvc_encode(pixels: np.ndarray, quality: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.yuv"), Path(folder, "out.266")
        frame, height, width = to_yuv420(pixels)
        source.write_bytes(frame)
        # --qpa 0: no perceptual adaptation, which trades PSNR away
        _run(
            "vvencapp",
            "-i",
            source,
            "-s",
            f"{width}x{height}",
            "-c",
            "yuv420_10",
            "-f",
            "1",
            "--qp",
            str(quality),
            "--qpa",
            "0",
            "--preset",
            "medium",
            "-t",
            "1",
            "-o",
            target,
        )
        return target.read_bytes()


def _vvc_decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.266"), Path(folder, "out.yuv")
        source.write_bytes(data)
        _run("vvdecapp", "-b", source, "-o", target)
        frame = from_yuv420(target.read_bytes(), height + height % 2, width + width % 2)
        return frame[:height, :width]


def _library(name: str) -> str:
    return f"{name} {features.version(name)}"


def codecs() -> dict[str, Classical]:
    """All codecs by name, with their quality grids and settings, installed or not."""
    aom = AvifImagePlugin.get_codec_version("aom") if features.check("avif") else None
    listed = (
        _pillow("JPEG", lambda q: {"quality": q, "subsampling": "4:2:0"}, range(5, 100, 5),
                f"{_library('libjpeg_turbo')}, 4:2:0, default Huffman tables"),
        # Without mct=1 Pillow codes R, G and B independently, at a cost of 3 to 6 dB.
        _pillow("JPEG2000",
                lambda rate: {"quality_mode": "rates", "quality_layers": [rate],
                              "irreversible": True, "mct": 1},
                range(10, 200, 20),
                f"OpenJPEG {features.version('jpg_2000')}, 4:4:4 ICT, 9/7 wavelet, "
                "quality is the compression ratio"),
        _pillow("WebP", lambda q: {"quality": q, "method": 4}, range(5, 100, 5),
                f"lib{_library('webp')}, lossy 4:2:0, method 4"),
        _pillow("AVIF",
                lambda q: {"quality": q, "speed": 6, "subsampling": "4:2:0", "codec": "aom",
                           "max_threads": 1},
                range(20, 100, 10),
                f"lib{_library('avif')}, aom {aom}, 4:2:0, speed 6, 1 thread"),
        Classical("BPG", tuple(range(47, 21, -5)), _bpg_encode, _bpg_decode,
                  "bpgenc x265, 8 bits, 4:4:4 YCbCr, times with process start and files",
                  ("bpgenc", "bpgdec")),
        Classical("VVC", tuple(range(42, 21, -5)), _vvc_encode, _vvc_decode,
                  "VVenC medium, 10 bits, 4:2:0 BT.601, --qpa 0, 1 thread, "
                  "times with process start and files",
                  ("vvencapp", "vvdecapp")),
    )  # fmt: skip
    return {codec.name: codec for codec in listed}


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


def _load(dataset_path: Path | None) -> tuple[list[np.ndarray], str]:
    """The images and the name of the data set."""
    from models import images

    if dataset_path is None:
        return [pixels for _, pixels in images.sample_photographs()], "built-in photographs"
    paths = images.list_images(dataset_path)
    return [images.read_image(path) for path in paths], dataset_path.resolve().name


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


def _measure_into(out: Path, names: list[str], dataset_path: Path | None) -> None:
    """Measure and write; rows of other codecs on the same data set in `out` are kept."""
    chosen = _choose(names)
    images, dataset = _load(dataset_path)
    print(f"{len(images)} images of {dataset}")
    rows = []
    for row in measure_all(chosen, images, dataset):
        print(
            f"{row['codec']:8} quality {row['quality']:>3}  {float(row['bpp']):7.4f} bpp  "
            f"{float(row['psnr']):7.4f} dB  MS-SSIM {row['ms_ssim'] or 'unknown'}",
            flush=True,
        )
        rows.append(row)
    measured = {codec.name for codec in chosen}
    kept = read_rows(out, COLUMNS) if out.exists() else []
    rows += [r for r in kept if r["codec"] not in measured and r["dataset"] == dataset]
    rows.sort(key=lambda row: list(codecs()).index(row["codec"]))  # stable: qualities in order
    write_text(out, csv_text(rows, COLUMNS))


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.classical",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset_path", type=Path, help="folder of images")
    parser.add_argument("--codecs", nargs="+", choices=list(codecs()), default=list(codecs()))
    parser.add_argument(
        "--resultdir",
        type=Path,
        help="folder of classical.csv (default: "
        "statistics with --dataset_path or --compare, outputs otherwise)",
    )
    parser.add_argument("--compare", action="store_true", help="compare with published points")
    options = parser.parse_args(arguments)
    own = options.compare or options.dataset_path
    folder = options.resultdir or Path("statistics" if own else "outputs")
    try:
        if options.compare:
            out = folder / "classical_agreement.csv"
            text = csv_text(agreement(folder), AGREEMENT_COLUMNS)
            write_text(out, text)
            print(text, end="")
        else:
            out = folder / "classical.csv"
            _measure_into(out, options.codecs, options.dataset_path)
    except (ValueError, OSError) as error:  # ImageError and DataError are ValueErrors
        sys.exit(f"classical: {error}")
    print(f"Wrote {out}.")


if __name__ == "__main__":
    main()
