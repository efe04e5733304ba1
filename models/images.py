"""Pixels in and out: image files to 8-bit RGB arrays, arrays to tensors, and back.

An image is a uint8 array (H, W, 3) of sRGB samples.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from models import files
from models.errors import ImageError
from models.presets import MAX_PIXELS

# Not all of Pillow's: some run an interpreter (EPS). MPO, of cameras, is opened as a kind of JPEG.
READABLE = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF", "AVIF", "JPEG2000")

# Suffix -> Pillow's format and options. All lossless but JPEG, which keeps the chroma's size.
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

PROFILED = {  # mode of an image and space of its profile -> the mode that the profile is for
    ("L", "GRAY"): "L", ("L", "RGB"): "RGB", ("RGB", "RGB"): "RGB", ("CMYK", "CMYK"): "CMYK",
}  # fmt: skip
NEARLY = 2  # levels from sRGB within which a profile is a way of writing sRGB
BITS, PHOTOMETRIC, ORIENTATION, PLANES, KINDS = 258, 262, 274, 284, 339  # tags of TIFF and EXIF
WHITE_IS_ZERO, SEPARATE, UNSIGNED = 0, 2, 1  # values of PHOTOMETRIC, PLANES and KINDS
Colour = tuple[int, int, int]  # sRGB, 0 to 255
Notice = Callable[[str], None]  # takes a sentence


def read_image(
    path: str | Path,
    max_pixels: int = MAX_PIXELS,
    *,
    background: Colour | None = None,
    notice: Notice = lambda _: None,
) -> np.ndarray:
    """Decode an image file, or what comes out of a pipe, to a uint8 array (H, W, 3).

    docs/datasets.md has a table of what each kind of file becomes, and of those that are refused.
    Transparent pixels are laid on the `background`; without one they are refused. `notice` takes a
    sentence on colours that were converted, and on a profile or EXIF data that make no sense.
    ImageError for what cannot be read; for more than `max_pixels` before anything is decoded.
    """
    with _opened(path, max_pixels) as image:
        profile = image.info.get("icc_profile")
        image.load()
        orientation = _orientation(image, notice, path)
        rgb = _rgb(_eight_bits(image, path), profile, path, background, notice)
        rgb.info.clear()  # of the EXIF data, which may be damaged, only the orientation counts
        rgb.getexif()[ORIENTATION] = orientation
        return np.array(ImageOps.exif_transpose(rgb))


def image_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width in pixels as `read_image` returns them, from the header alone.

    ImageError for whatever a header tells; the rest shows when the image is read.
    """
    with _opened(path, max_pixels) as image:
        size = (image.height, image.width)
        if isinstance(image, TiffImageFile):  # Pillow has turned its size already
            return size
        if image.format == "PNG" and "exif" not in image.info:
            return size  # asking for EXIF data would decode the pixels, as it may come after them
        return size[::-1] if _orientation(image) in (5, 6, 7, 8) else size


def _orientation(image: Image.Image, notice: Notice = lambda _: None, path: object = "") -> int:
    """The EXIF orientation, 1 to 8; 1 for a TIFF, which Pillow turns itself."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a small file format of its own, damaged: whatever its parser raises
        notice(f"{path}: its EXIF data are damaged, so that it was not turned.")
        return 1


@contextmanager
def _opened(path: str | Path, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the opened, not yet decoded image; every failure in the block is an ImageError."""
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:
            # Of sizes below the limit that is checked here, and of odd metadata.
            warnings.filterwarnings("ignore", module="PIL")
            with Image.open(file, formats=READABLE) as image:
                _check_header(image, path, max_pixels)
                yield image
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        kinds = f"{', '.join(READABLE)}, of up to 16 unsigned bits per sample"
        raise ImageError(f"{path} is not an image of a supported format: {kinds}.") from None
    # Decoders raise whatever a damaged file makes them raise: SyntaxError, IndexError, and others.
    except Exception as error:
        known = isinstance(error, OSError) and error.strerror
        words = known or f"it is damaged, truncated or too large ({_phrase(error)})"
        raise ImageError(f"{path} cannot be read: {words}.") from error


def _phrase(error: Exception) -> str:
    """An exception's text, fit to stand inside a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _check_header(image: Image.Image, path: str | Path, max_pixels: int) -> None:
    """Refuse what the header already tells. ImageError."""
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise ImageError(
            f"{path} has {image.width}x{image.height} = {pixels:,} pixels, more than the limit of "
            f"{max_pixels:,}: raise max_pixels or scale it down."
        )
    # The further images of an MPO file are previews, or the other eye of a stereo camera.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError(f"{path} holds several images or an animation; extract one frame first.")
    if image.mode in ("LAB", "HSV") or (image.mode == "CMYK" and "icc_profile" not in image.info):
        raise ImageError(
            f"{path} is in {image.mode} colours without a profile; convert it to RGB first."
        )
    misread = image.mode == "F"
    if isinstance(image, TiffImageFile):  # Pillow would make another picture of what is below
        tags = image.tag_v2
        bits = max(tags.get(BITS, (1,)))
        planes = bits == 16 and not image.mode.startswith("I") and tags.get(PLANES) == SEPARATE
        signed = any(kind != UNSIGNED for kind in tags.get(KINDS, ()))  # TIFF 6.0, section 19
        misread |= planes or signed or bits > 16
    if misread:
        raise ImageError(
            f"{path} has samples of an unusual kind; make it 8 or 16 unsigned bits, interleaved."
        )


def _eight_bits(image: Image.Image, path: str | Path) -> Image.Image:
    """A decoded image of any accepted mode with 8 bits per sample. ImageError."""
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # one of 16-bit colours, lost in Pillow's 8 bits
        raise ImageError(f"{path} has a transparent colour of 16 bits; make it 8 bits first.")
    if image.mode == "La":  # grey times alpha, which Pillow makes nothing else of
        return image.convert("LA")
    if not image.mode.startswith("I"):
        return image
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    levels = np.asarray(image)
    upper = (levels >> (max(tags.get(BITS, (16,))) - 8)).astype(np.uint8)
    # Pillow gives grey of 12 and 16 bits as it is stored.
    grey = Image.fromarray(255 - upper if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else upper)
    if key is not None:
        grey.putalpha(Image.fromarray(np.where(levels == key, 0, 255).astype(np.uint8)))
    return grey


def _rgb(
    image: Image.Image,
    profile: bytes | None,
    path: str | Path,
    background: Colour | None,
    notice: Notice,
) -> Image.Image:
    """An image of 8 bits per sample in sRGB, on the background where it is transparent."""
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode != "CMYK":
        image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if profile:
        image = _from_profile(image, profile, path, notice)
    if image.mode == "CMYK":
        raise ImageError(f"{path} is in CMYK colours with a profile of no use; convert it first.")
    image = image.convert("RGB")
    if alpha is None or alpha.getextrema() == (255, 255):
        return image
    if background is None:
        raise ImageError(f"{path} has transparent pixels: codec.py takes --background white.")
    return Image.composite(image, Image.new("RGB", image.size, background), alpha)


def _from_profile(
    image: Image.Image, profile: bytes, path: str | Path, notice: Notice
) -> Image.Image:
    """L, RGB or CMYK to sRGB by an ICC profile; as it is if the profile says sRGB or nonsense."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = PROFILED[image.mode, source.profile.xcolor_space.strip()]
        to_srgb = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        name = " ".join(ImageCms.getProfileDescription(source).split())
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError):
        notice(f"{path}: its colour profile is damaged or not for its pixels and was left aside.")
        return image
    if mode != "CMYK":
        steps = np.arange(0, 256, 15, np.uint8)  # 18 to a side, black and white among them
        cube = np.stack(np.meshgrid(steps, steps, steps), 3).reshape(18, -1, 3)
        colours = Image.fromarray(cube).convert(mode)
        change = np.asarray(to_srgb.apply(colours), int) - np.asarray(colours.convert("RGB"), int)
        if np.abs(change).max() <= NEARLY:
            return image
    notice(f"{path}: colours were converted to sRGB from {name or 'its profile'}.")
    return to_srgb.apply(image.convert(mode))


def write_image(path: str | Path, pixels: np.ndarray) -> None:
    """Write a uint8 array (H, W, 3) in the format of the suffix, atomically: see `encoded`."""
    files.write_bytes(path, encoded(path, pixels))


def encoded(path: str | Path, pixels: np.ndarray) -> bytes:
    """The image file of a uint8 array (H, W, 3) in the format of the path's suffix.

    ImageError for another suffix, and for a size that the format cannot hold.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise ImageError(f"{path} ends in none of the formats written: {', '.join(WRITABLE)}.")
    kind, options = WRITABLE[path.suffix.lower()]
    buffer = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        size = f"{pixels.shape[1]}x{pixels.shape[0]} pixels"
        reason = f"{path}: {kind} cannot hold {size} ({_phrase(error)}); use .png."
        raise ImageError(reason) from error
    return buffer.getvalue()


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float().div_(255)


def to_uint8(x: torch.Tensor) -> np.ndarray:
    """Float (1, 3, H, W) or (3, H, W) in [0, 1] to uint8 (H, W, 3): scaled, rounded, clamped."""
    x = x.detach().reshape(3, *x.shape[-2:])
    levels = x.float().mul(255).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().cpu().numpy()


def check_images(x: torch.Tensor) -> None:
    """ValueError unless x (B, 3, H, W) can be compressed."""
    expected = "compress takes images (B, 3, H, W) of float32 in [0, 1]"
    if x.ndim != 4 or x.shape[1] != 3 or not x.numel() or x.dtype != torch.float32:
        raise ValueError(f"{expected}, B, H, W >= 1, not {tuple(x.shape)} of {x.dtype}.")
    low, high = (v.item() for v in x.aminmax())
    if math.isnan(low):  # NaN is the least and the greatest
        raise ValueError(f"{expected}; of these pixels some are NaN.")
    if low < 0 or high > 1:
        raise ValueError(
            f"{expected}, not from {low:g} to {high:g}: divide by 255, or clamp to that range."
        )
