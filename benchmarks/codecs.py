"""The classical codecs that come with Pillow, from pixels to the bytes of a file and back."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
from PIL import AvifImagePlugin, Image, features


@dataclass(frozen=True)
class Classical:
    """A codec at its grid of qualities. `options` are those of `Image.save` at a quality."""

    name: str
    qualities: range
    options: Callable[[int], dict[str, Any]]
    settings: str  # in words

    def encode(self, pixels: np.ndarray, quality: int) -> bytes:
        """The file of an image, uint8 (H, W, 3)."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format=self.name.upper(), **self.options(quality))
        return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The image in a file, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def codecs() -> dict[str, Classical]:
    """All of them by name."""
    libjpeg, webp, avif = (f"{k} {features.version(k)}" for k in ("libjpeg_turbo", "webp", "avif"))
    aom = AvifImagePlugin.get_codec_version("aom") if features.check("avif") else None
    listed = (
        ("JPEG", range(5, 100, 5), lambda q: {"quality": q, "subsampling": "4:2:0"},
         f"{libjpeg}, 4:2:0, default Huffman tables"),
        # Without mct=1 Pillow codes R, G and B independently, at a cost of 3 to 6 dB.
        ("JPEG2000", range(10, 200, 20),
         lambda rate: {"quality_mode": "rates", "quality_layers": [rate], "irreversible": True,
                       "mct": 1},
         f"OpenJPEG {features.version('jpg_2000')}, 4:4:4 ICT, 9/7 wavelet, "
         "quality is the compression ratio"),
        ("WebP", range(5, 100, 5), lambda q: {"quality": q, "method": 4},
         f"lib{webp}, lossy 4:2:0, method 4"),
        ("AVIF", range(20, 100, 10),
         lambda q: {"quality": q, "speed": 6, "subsampling": "4:2:0", "codec": "aom",
                    "max_threads": 1},
         f"lib{avif}, aom {aom}, 4:2:0, speed 6, 1 thread"),
    )  # fmt: skip
    return {
        name: Classical(name, qualities, options, f"Pillow {PIL.__version__}, {settings}")
        for name, qualities, options, settings in listed
    }
