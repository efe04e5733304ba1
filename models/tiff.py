"""TIFF files of what Pillow misreads or does not know: 12 bits, WhiteIsZero, planes, signs.

TIFF revision 6.0, sections 8 and 19. Pillow reads 1 to 8 bits and 16 bits side by side. It gives
12 and 16 bits of grey as they are stored, takes separate planes of 16 bits for interleaved ones,
and bytes with a sign for bytes without.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import PREFIXES, TiffImageFile

from models.errors import ImageError

BITS, PHOTOMETRIC, PLANES, EXTRA, KINDS = 258, 262, 284, 338, 339  # tags
WHITE_IS_ZERO, SEPARATE, PREMULTIPLIED, UNSIGNED = 0, 2, 1, 1  # values of the last four
COMPRESSIONS = (1, 8, 32946)  # none, and Deflate by two numbers: tifffile's own
ADVICE = "convert it to 8 or 16 unsigned bits per sample first."


def check(image: TiffImageFile, path: object) -> None:
    """ImageError for a TIFF that Pillow has opened and would read as another picture."""
    tags = image.tag_v2
    if any(kind != UNSIGNED for kind in tags.get(KINDS, ())) or max(tags.get(BITS, (1,))) > 16:
        raise ImageError(f"{path} is a TIFF of {_samples(image.fp)}: {ADVICE}")


def refusal(file: Any, path: object) -> ImageError | None:
    """What to say of a file that Pillow does not open; None unless it is a TIFF."""
    file.seek(0)
    if not file.read(4).startswith(tuple(PREFIXES)):
        return None
    return ImageError(f"{path} is a TIFF of {_samples(file)}: {ADVICE}")


def _samples(file: Any) -> str:
    """Such as "3 samples of 12 bits, uint, rgb, contig", by the names of tifffile."""
    try:
        import tifffile  # which few files need

        file.seek(0)
        page: Any = tifffile.TiffFile(file).pages.first
        names = (v.name.lower() for v in (page.sampleformat, page.photometric, page.planarconfig))
        return f"{page.samplesperpixel} sample(s) of {page.bitspersample} bits, {', '.join(names)}"
    except Exception:  # none of a TIFF, damaged or not installed: whatever it raises
        return "unusual samples"


def grey(image: TiffImageFile) -> np.ndarray:
    """uint8 (H, W) of a decoded TIFF of 12 or 16 bits of grey: the upper 8, white as 255."""
    tags = image.tag_v2
    levels = (np.asarray(image) >> (max(tags[BITS]) - 8)).astype(np.uint8)
    return 255 - levels if tags[PHOTOMETRIC] == WHITE_IS_ZERO else levels


def has_wide_planes(image: TiffImageFile) -> bool:
    """Whether the samples, of 16 bits, lie in a plane for each colour."""
    tags = image.tag_v2
    wide = max(tags.get(BITS, (1,))) == 16 and not image.mode.startswith("I")
    return wide and tags.get(PLANES) == SEPARATE


def planes(image: TiffImageFile, path: object) -> Image.Image:
    """The picture of such a file, 8 bits per sample, not turned as its orientation says."""
    try:
        import tifffile
    except ImportError:
        raise ImageError(
            f"{path} has planes of 16 bits, which need tifffile (pip install tifffile)."
        ) from None
    file: Any = image.fp
    file.seek(0)
    page: Any = tifffile.TiffFile(file).pages.first
    if page.compression not in COMPRESSIONS:
        raise ImageError(
            f"{path} has planes of 16 bits, compressed by {page.compression.name}; store it with "
            "interleaved samples."
        )
    if not all((*page.dataoffsets, *page.databytecounts)):  # which tifffile fills with zeros
        raise ImageError(f"{path} is damaged or truncated (a plane is missing).")
    bands = (page.asarray() >> 8).astype(np.uint8)  # (S, H, W)
    mode = "RGBa" if PREMULTIPLIED in image.tag_v2.get(EXTRA, ()) else image.mode
    return Image.merge(mode, [Image.fromarray(band) for band in bands[: len(image.getbands())]])
