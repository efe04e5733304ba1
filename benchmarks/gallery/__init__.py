"""One static page that compares reconstructions: `make gallery`.

    python -m benchmarks gallery --dataset_path photos      # one's own photographs

Codes photographs with every checkpoint there is and writes a page that needs no server: open
<outdir>/gallery/index.html. The reader flips between the original, the learned codecs and JPEG at
a matched rate, sees the bits of each 16x16 block, and where the point lies on the rate-distortion
curves.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.classical import codecs, decode
from evaluation.bench import SUFFIX
from evaluation.bits import bits_per_position
from evaluation.choice import of_every_model
from evaluation.metrics import ms_ssim, ms_ssim_db, psnr
from evaluation.photographs import Photograph, open_photographs
from evaluation.plots import LOOKS, style_of
from evaluation.points import ModelCodec, Point, trained_point
from models import checkpoint
from models.cli import Progress, choose_device
from models.files import write_bytes, write_text
from models.images import to_tensor, write_image
from models.presets import digits, short

HERE = Path(__file__).parent
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
    name, lmbda = type(model).__name__, model.point.lmbda
    file, image = (f"{folder}/{name}_{digits(lmbda)}{suffix}" for suffix in (SUFFIX, ".webp"))
    write_bytes(out / file, codec.encode(pixels))
    data = (out / file).read_bytes()
    decoded = codec.decode(data)
    write_image(out / image, decoded)
    bits = bits_per_position(model, to_tensor(pixels).to(codec.device))
    return {
        "codec": name, "lmbda": lmbda, "epoch": model.metadata.get("epoch"),
        **quality(pixels, decoded, len(data)), "image": image, "file": file,
        "rows": bits.shape[0], "columns": bits.shape[1],
        "bits": np.rint(bits).astype(int).ravel().tolist(),
    }  # fmt: skip


def add_jpeg(photo: dict, pixels: np.ndarray, out: Path) -> None:
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
            place = f"{photo['folder']}/jpeg_quality_{q}.jpg"
            write_bytes(out / place, files[q])
            photo["jpegs"][q] = {**measured, "image": place, "file": place}


def measure(
    photographs: list[Photograph], points: list[Point], out: Path, step: Callable[[], None]
) -> list[dict]:
    """Code every photograph with every checkpoint; one entry per photograph for the page.

    Images are named by number, since the names of files may hold anything. `step` is called
    after each coding.
    """
    photos: list[dict] = []
    for number, photograph in enumerate(photographs, 1):
        folder = f"images/{number:02}"
        original = f"{folder}/original.webp"
        write_image(out / original, photograph.read())
        sides = {"width": photograph.width, "height": photograph.height}
        about = {"name": photograph.stem, "folder": folder, "original": original}
        photos.append({**about, **sides, "points": []})
    for point in points:
        codec = point.load()
        for photo, photograph in zip(photos, photographs, strict=True):
            entry = learned_point(codec, photograph.read(), out, photo["folder"])
            photo["points"].append(entry)
            step()
    for photo, photograph in zip(photos, photographs, strict=True):
        add_jpeg(photo, photograph.read(), out)
    return photos


def page(photos: list[dict], names: list[str]) -> str:
    """The page as HTML, with its style, its script and all numbers inside.

    `names`: the learned codecs in their order. Images are referred to by relative paths.
    """
    legend = [
        {"name": name, "title": short(name), "color": style_of(name)["color"],
         "marker": LOOKS.get(name, ("", "o"))[1]}
        for name in [*names, "JPEG"]
    ]  # fmt: skip
    lambdas = sorted({point["lmbda"] for photo in photos for point in photo["points"]})
    data = {"codecs": legend, "lambdas": lambdas, "photos": photos}
    # A "<" could end the script element: the names of photographs may hold anything.
    inlined = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    html = (HERE / "page.html").read_text(encoding="utf-8")
    for kind in ("css", "js"):
        html = html.replace(f"{{{{{kind}}}}}", (HERE / f"page.{kind}").read_text("utf-8"), 1)
    return html.replace("{{data}}", inlined, 1)  # last: it may hold anything


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="PATH",
        help="folder of images, or one image (default: built-in photographs)")  # fmt: skip
    add("--ckpt_dir", type=Path, default=checkpoint.STUDY, metavar="DIR",
        help="folder of the checkpoints (default: %(default)s)")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda (default: a GPU if there is one)")


def run(options: argparse.Namespace) -> None:
    """Build the page. CheckpointError or ImageError when there is nothing to show."""
    device = str(choose_device(options.device))
    chosen = of_every_model(partial(checkpoint.find, root=options.ckpt_dir))
    pairs = [(path, name) for name, paths in chosen.items() for path in paths]
    points = [trained_point(*pair, device=device) for pair in pairs]
    photographs = open_photographs(options.dataset_path)
    print(f"{len(photographs)} photograph(s), {len(points)} checkpoint(s) of {', '.join(chosen)}")
    out = options.outdir / "gallery"
    with Progress("gallery", len(photographs) * len(points), "image") as progress:
        photos = measure(photographs, points, out, progress.step)
    write_text(out / "index.html", page(photos, list(chosen)))
    print(f"Wrote {out / 'index.html'}; open it in a browser.")
