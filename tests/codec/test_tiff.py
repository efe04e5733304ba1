"""TIFF files of every kind of samples: read rightly, or refused."""

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from models.errors import ImageError
from models.images import read_image


def tiff(
    path: Path,
    levels: np.ndarray,
    bits: int,
    photometric: int,
    separate: bool = False,
    kind: int = 1,
    order: str = "<",
    deflate: bool = False,
) -> Path:
    """A TIFF file of integers (H, W, S) written by hand (TIFF revision 6.0, section 2)."""
    height, width, count = levels.shape
    strips = []
    for rows in levels.transpose(2, 0, 1) if separate else [levels.reshape(height, -1)]:
        data = rows.astype(f"{order}u{bits // 8}") if bits % 8 == 0 else rows.astype(">u2")
        if bits % 8:  # packed, the highest bit first, rows on whole bytes
            single = np.unpackbits(data.view(np.uint8), axis=1).reshape(height, -1, 16)
            data = np.packbits(single[:, :, 16 - bits :].reshape(height, -1), axis=1)
        strips.append(zlib.compress(data.tobytes()) if deflate else data.tobytes())
    offsets = [8 + sum(map(len, strips[:k])) for k in range(len(strips))]
    tags = {
        256: [width], 257: [height], 258: [bits] * count, 259: [8 if deflate else 1],
        262: [photometric], 273: offsets, 277: [count], 278: [height],
        279: [len(strip) for strip in strips], 284: [2 if separate else 1], 339: [kind] * count,
    }  # fmt: skip
    at = 8 + sum(map(len, strips))
    entries, values = struct.pack(f"{order}H", len(tags)), b""
    for tag, numbers in tags.items():
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        place = struct.pack(f"{order}I", at + 2 + 12 * len(tags) + 4 + len(values))
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers))
        entries += packed if len(numbers) == 1 else place
        values += packed if len(numbers) > 1 else b""
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, at)
    path.write_bytes(start + b"".join(strips) + entries + bytes(4) + values)
    return path


# Bits, photometric interpretation (0: white is zero, 1: black is zero, 2: RGB), separate planes.
READ = {(bits, grey, False) for bits in (1, 2, 4, 8, 16) for grey in (0, 1)}
READ |= {(12, 1, False), (8, 2, False), (8, 2, True), (16, 2, False)}


@pytest.mark.parametrize("kind", [1, 2, 3])  # unsigned, signed, floating point
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16, 32])
def test_every_kind_of_tiff_is_read_rightly_or_refused(tmp_path, bits, kind):
    for photometric, separate in ((0, False), (1, False), (2, False), (2, True)):
        levels = np.random.randint(0, 2**bits, (5, 7, 3 if photometric == 2 else 1), np.int64)
        expected = levels >> (bits - 8) if bits > 8 else levels * 255 // (2**bits - 1)
        expected = 255 - expected if photometric == 0 else expected
        for order, deflate in itertools.product("<>", (False, True)):
            path = tiff(
                tmp_path / "a.tif", levels, bits, photometric, separate, kind, order, deflate
            )
            try:
                pixels = read_image(path)
            except ImageError as error:
                assert "16 unsigned bits" in str(error)
                same = order == ">" or (bits, photometric, separate) not in READ
                assert kind != 1 or same, (photometric, separate, deflate)
            else:
                assert kind == 1 and np.array_equal(pixels, expected + np.zeros(3, int))
