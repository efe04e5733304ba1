"""Pixels in and out: image files to 8-bit RGB arrays, arrays to tensors, and back.

An image is a uint8 array (H, W, 3) of sRGB samples as they are stored. What each kind of file
becomes is stated at `read_image`.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from models import files
from models.errors import ImageError
from models.presets import MAX_PIXELS

# Pillow also opens formats that run an interpreter (EPS); files from strangers stay with these.
READABLE = (
    "PNG", "JPEG", "MPO", "WEBP", "BMP", "PPM", "TIFF", "GIF", "AVIF", "JPEG2000",
)  # fmt: skip

# Suffix -> Pillow's format and options. All lossless but JPEG.
WRITABLE: dict[str, tuple[str, dict]] = {
    ".png": ("PNG", {}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".webp": ("WEBP", {"lossless": True}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}

COLOUR_SPACES = {"CMYK": "CMYK", "LAB": "CIE Lab", "HSV": "HSV"}
EXIF_ORIENTATION = 0x0112


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image file to a uint8 array (H, W, 3).

    Grey, palette and 1-bit images become RGB. Of 16 bits per sample the upper 8 are kept.
    An EXIF orientation is applied. Colour profiles are ignored: samples are taken as stored.
    Alpha is dropped if every pixel is opaque. Of a camera's JPEG with embedded previews (MPO)
    the main image is taken.

    Errors: `ImageError` for a missing file, a file that is no image, a damaged or truncated
    one, more than `max_pixels` pixels (told from the header, before anything is decoded),
    transparent pixels, animations and multi-page files, CMYK and CIE Lab, and samples of 32
    bits or floating point.
    """
    with _opened(path, max_pixels) as image:
        ImageOps.exif_transpose(image, in_place=True)  # decodes
        return _rgb(image, path)


def image_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width in pixels as `read_image` returns them, from the header alone.

    Errors: `ImageError` for whatever can be told from a header. Damage further on, and
    transparent pixels, show only when the image is read.
    """
    with _opened(path, max_pixels) as image:
        size = (image.height, image.width)
        if image.format == "TIFF":  # Pillow has turned its size already
            return size
        if image.format == "PNG" and "exif" not in image.info:
            return size  # asking for EXIF data would decode the pixels, as it may come after them
        return size[::-1] if image.getexif().get(EXIF_ORIENTATION) in (5, 6, 7, 8) else size


@contextmanager
def _opened(path: str | Path, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the opened, not yet decoded image; every failure in the block is an ImageError."""
    try:
        with warnings.catch_warnings():
            # Of sizes below the limit that is checked here, and of odd metadata.
            warnings.filterwarnings("ignore", module="PIL")
            Image.init()  # otherwise only some of the formats are known; nothing the second time
            with Image.open(path, formats=[f for f in READABLE if f in Image.OPEN]) as image:
                _check_header(image, path, max_pixels)
                yield image
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder; name an image file.") from None
    except PermissionError:
        raise ImageError(f"{path} may not be read; check its permissions.") from None
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{path} is not an image of a supported format ({', '.join(READABLE)})."
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{path} has more pixels than Pillow opens, {2 * (Image.MAX_IMAGE_PIXELS or 0):,}; "
            "scale it down."
        ) from None
    except MemoryError:
        raise ImageError(f"{path} needs more memory than there is; scale it down.") from None
    # Pillow's decoders raise whatever a damaged file makes them raise: OSError, SyntaxError,
    # ValueError, IndexError, struct.error, zlib.error and others.
    except Exception as error:
        raise ImageError(f"{path} is damaged or truncated ({_phrase(error)}).") from error


def _phrase(error: Exception) -> str:
    """An exception's text, fit to stand inside a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _check_header(image: Image.Image, path: str | Path, max_pixels: int) -> None:
    """Refuse what the header already tells. ImageError."""
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise ImageError(
            f"{path} has {image.width}x{image.height} = {pixels:,} pixels, more than the limit of "
            f"{max_pixels:,}; raise max_pixels or scale the image down."
        )
    # The further images of an MPO file are previews, or the other eye of a stereo camera.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError(f"{path} holds several images or an animation; extract one frame first.")
    if image.mode in COLOUR_SPACES:
        raise ImageError(
            f"{path} is in {COLOUR_SPACES[image.mode]} colours, which need a colour profile to "
            "become RGB; convert it to RGB first."
        )
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise ImageError(
            f"{path} has 32-bit or floating-point samples; scale it to 8 or 16 bits first."
        )


def _rgb(image: Image.Image, path: str | Path) -> np.ndarray:
    """The pixels of a decoded image of any accepted mode as uint8 (H, W, 3). ImageError."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow keeps the upper bits of 16-bit RGB too
        samples = np.asarray(image)
        if np.any(samples == image.info.get("transparency", -1)):
            raise ImageError(_transparency(path))
        return np.repeat((samples >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        key = image.info.get("transparency")
        image = image.convert("RGBA")
        wide = isinstance(key, tuple) and max(key) > 255  # lost in Pillow's 8 bits
        if wide or np.asarray(image)[:, :, 3].min() < 255:
            raise ImageError(_transparency(path))
    return np.array(image.convert("RGB"))


def _transparency(path: str | Path) -> str:
    return f"{path} has transparent pixels; put it on a background of your choice first."


def write_image(path: str | Path, pixels: np.ndarray) -> None:
    """Write a uint8 array (H, W, 3) in the format of the suffix, atomically.

    Lossless for .png, .bmp, .ppm, .tif, .tiff and .webp; .jpg and .jpeg are of quality 95
    without chroma subsampling.

    Errors: `ImageError` for another suffix, another kind of array or a size that the format
    cannot hold; `OSError` of the file system.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise ImageError(
            f"{path} does not end in one of the formats that can be written: {', '.join(WRITABLE)}."
        )
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ImageError(
            f"An image to write is a uint8 array (H, W, 3), not {pixels.dtype} {pixels.shape}."
        )
    kind, options = WRITABLE[path.suffix.lower()]
    buffer = io.BytesIO()  # so that a failure is either the encoder's or the disk's
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        height, width = pixels.shape[:2]
        raise ImageError(
            f"{path}: {kind} cannot hold {width}x{height} pixels ({_phrase(error)}); use .png."
        ) from error
    files.write_bytes(path, buffer.getvalue())


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float().div_(255)


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """Float (1, 3, H, W) or (3, H, W) in [0, 1] to uint8 (H, W, 3): scaled, rounded, clamped."""
    if x.ndim == 4:
        x = x.squeeze(0)
    if x.ndim != 3 or x.shape[0] != 3:
        raise ImageError(f"One image is a tensor (1, 3, H, W), not {tuple(x.shape)}.")
    levels = x.detach().float().mul(255).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().cpu().numpy()


def check_images(x: torch.Tensor) -> None:
    """ValueError unless x (B, 3, H, W) can be compressed."""
    expected = "compress takes images (B, 3, H, W) of float32 in [0, 1]"
    if x.ndim != 4 or x.shape[1] != 3 or not x.numel() or x.dtype != torch.float32:
        raise ValueError(f"{expected}, B, H, W >= 1, not {tuple(x.shape)} of {x.dtype}.")
    low, high = (v.item() for v in x.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):  # NaN is the least and the greatest
        raise ValueError(f"{expected}; these hold pixels that are not finite.")
    if low < 0 or high > 1:
        raise ValueError(
            f"{expected}, not from {low:g} to {high:g}: divide by 255, or clamp to that range."
        )
