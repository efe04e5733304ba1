"""Classical codecs as functions from pixels to the bytes of a file and back.

JPEG, JPEG2000, WebP and AVIF come with Pillow; BPG needs `bpgenc` and `bpgdec`, VVC needs
`vvencapp` and `vvdecapp` on the PATH.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import AvifImagePlugin, Image, features

from models.errors import DataError


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


def _saved(pixels: np.ndarray, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=form, **options)
    return file.getvalue()


def _opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _pillow(
    name: str, options: Callable[[int], dict[str, Any]], grid: Iterable[int], settings: str
) -> Classical:
    """A codec inside Pillow; `options` turns a quality into the arguments of `Image.save`."""
    return Classical(
        name,
        tuple(grid),
        lambda pixels, quality: _saved(pixels, name.upper(), **options(quality)),
        lambda data, size: _opened(data),
        f"Pillow {PIL.__version__}, {settings}",
    )


def _converted(data: bytes, source: str, target: str, command: str) -> bytes:
    """What a program makes of a file: runs `command` in a folder where `source` holds the data,
    and returns what it wrote to `target`. DataError with the end of what it said if it fails.
    """
    program, *words = command.split()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, source).write_bytes(data)
        done = subprocess.run([program, *words], cwd=folder, capture_output=True, check=False)
        if done.returncode:
            text = (done.stderr or done.stdout).decode(errors="replace").strip()[-200:]
            raise DataError(f"{program} failed with exit status {done.returncode}: {text}")
        return Path(folder, target).read_bytes()


def _bpg_encode(pixels: np.ndarray, quality: int) -> bytes:
    command = f"bpgenc -q {quality} -f 444 -c ycbcr -b 8 -e x265 -o out.bpg in.png"
    return _converted(_saved(pixels, "PNG"), "in.png", "out.bpg", command)


def _bpg_decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
    return _opened(_converted(data, "in.bpg", "out.png", "bpgdec -o out.png in.bpg"))


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
    frame, height, width = to_yuv420(pixels)
    # --qpa 0: no perceptual adaptation, which trades PSNR away
    command = (
        f"vvencapp -i in.yuv -s {width}x{height} -c yuv420_10 -f 1 --qp {quality} --qpa 0 "
        "--preset medium -t 1 -o out.266"
    )
    return _converted(frame, "in.yuv", "out.266", command)


def _vvc_decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    frame = _converted(data, "in.266", "out.yuv", "vvdecapp -b in.266 -o out.yuv")
    return from_yuv420(frame, height + height % 2, width + width % 2)[:height, :width]


def codecs() -> dict[str, Classical]:
    """All codecs by name, with their quality grids and settings, installed or not."""
    libjpeg, webp, avif = (f"{k} {features.version(k)}" for k in ("libjpeg_turbo", "webp", "avif"))
    aom = AvifImagePlugin.get_codec_version("aom") if features.check("avif") else None
    listed = (
        _pillow("JPEG", lambda q: {"quality": q, "subsampling": "4:2:0"}, range(5, 100, 5),
                f"{libjpeg}, 4:2:0, default Huffman tables"),
        # Without mct=1 Pillow codes R, G and B independently, at a cost of 3 to 6 dB.
        _pillow("JPEG2000",
                lambda rate: {"quality_mode": "rates", "quality_layers": [rate],
                              "irreversible": True, "mct": 1},
                range(10, 200, 20),
                f"OpenJPEG {features.version('jpg_2000')}, 4:4:4 ICT, 9/7 wavelet, "
                "quality is the compression ratio"),
        _pillow("WebP", lambda q: {"quality": q, "method": 4}, range(5, 100, 5),
                f"lib{webp}, lossy 4:2:0, method 4"),
        _pillow("AVIF",
                lambda q: {"quality": q, "speed": 6, "subsampling": "4:2:0", "codec": "aom",
                           "max_threads": 1},
                range(20, 100, 10),
                f"lib{avif}, aom {aom}, 4:2:0, speed 6, 1 thread"),
        Classical("BPG", tuple(range(47, 21, -5)), _bpg_encode, _bpg_decode,
                  "bpgenc x265, 8 bits, 4:4:4 YCbCr, times with process start and files",
                  ("bpgenc", "bpgdec")),
        Classical("VVC", tuple(range(42, 21, -5)), _vvc_encode, _vvc_decode,
                  "VVenC medium, 10 bits, 4:2:0 BT.601, --qpa 0, 1 thread, "
                  "times with process start and files",
                  ("vvencapp", "vvdecapp")),
    )  # fmt: skip
    return {codec.name: codec for codec in listed}
