"""What the page shows: files, decoded images and numbers of every codec, written to a folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.codecs import codecs, decode
from evaluation.bench import SUFFIX
from evaluation.bits import bits_per_position
from evaluation.metrics import ms_ssim, ms_ssim_db, psnr
from evaluation.photographs import Photograph
from evaluation.points import ModelCodec, Point
from models.files import write_bytes
from models.images import to_tensor, write_image
from models.presets import digits

JPEG_QUALITIES = range(1, 96)  # above 95 libjpeg spends bits on nothing that is visible
JPEG_CURVE = range(5, 96, 10)


def quality(original: np.ndarray, decoded: np.ndarray, size: int) -> dict:
    """bytes, bpp, PSNR in dB, MS-SSIM in dB; None for what is not a finite number."""
    pixels = original.shape[0] * original.shape[1]
    similarity = ms_ssim_db(ms_ssim(original, decoded))
    numbers = {"bpp": 8 * size / pixels, "psnr": psnr(original, decoded), "ms_ssim": similarity}
    rounded = {k: round(v, 5) if math.isfinite(v) else None for k, v in numbers.items()}
    return {"bytes": size, **rounded}


def learned_point(codec: ModelCodec, pixels: np.ndarray, out: Path, folder: str) -> dict:
    """Code one photograph with one checkpoint through a real file; its entry for the page.

    Writes <out>/<folder>/<Model>_<lambda>.lic and .webp (lossless), the image of that file.
    """
    model = codec.model
    assert model.point is not None
    name, lmbda = type(model).__name__, model.point.lmbda
    place = f"{folder}/{name}_{digits(lmbda)}"
    file = out / f"{place}{SUFFIX}"
    write_bytes(file, codec.encode(pixels))
    decoded = codec.decode(file.read_bytes())
    write_image(out / f"{place}.webp", decoded)
    bits = bits_per_position(model, to_tensor(pixels).to(codec.device))
    return {
        "codec": name,
        "lmbda": lmbda,
        "epoch": model.metadata.get("epoch"),
        **quality(pixels, decoded, file.stat().st_size),
        "image": f"{place}.webp",
        "file": f"{place}{SUFFIX}",
        "rows": bits.shape[0],
        "columns": bits.shape[1],
        "bits": np.rint(bits).astype(int).ravel().tolist(),
    }


def add_jpeg(photo: dict, pixels: np.ndarray, out: Path, folder: str) -> None:
    """Give each point the JPEG quality of nearest file size, and the photo its JPEGs and curve.

    The JPEG files themselves go into the folder: the page shows what a browser makes of them.
    """
    jpeg = codecs()["JPEG"]
    files = {q: jpeg.encode(pixels, q) for q in JPEG_QUALITIES}
    for point in photo["points"]:
        size = point["bytes"]
        point["jpeg"] = min(files, key=lambda q: (abs(len(files[q]) - size), q))
    photo["jpegs"], photo["jpeg_curve"] = {}, []
    matched = {point["jpeg"] for point in photo["points"]}
    for q in sorted(matched | set(JPEG_CURVE)):
        measured = quality(pixels, decode(files[q]), len(files[q]))
        photo["jpeg_curve"].append({key: measured[key] for key in ("bpp", "psnr", "ms_ssim")})
        if q in matched:
            place = f"{folder}/jpeg_quality_{q}.jpg"
            write_bytes(out / place, files[q])
            photo["jpegs"][q] = {**measured, "image": place, "file": place}


def measure(
    photographs: list[Photograph], points: list[Point], out: Path, step: Callable[[], None]
) -> list[dict]:
    """Code every photograph with every checkpoint; one entry per photograph for the page.

    Images are named by number, since the names of files may hold anything. `step` is called
    after each coding.
    """
    entries: list[tuple[dict, Photograph, str]] = []
    for number, photograph in enumerate(photographs, 1):
        folder = f"images/{number:02}"
        write_image(out / folder / "original.webp", photograph.read())
        photo = {
            "name": photograph.stem, "width": photograph.width, "height": photograph.height,
            "original": f"{folder}/original.webp", "points": [],
        }  # fmt: skip
        entries.append((photo, photograph, folder))
    for point in points:
        codec = point.load()
        for photo, photograph, folder in entries:
            photo["points"].append(learned_point(codec, photograph.read(), out, folder))
            step()
    for photo, photograph, folder in entries:
        add_jpeg(photo, photograph.read(), out, folder)
    return [photo for photo, _, _ in entries]
