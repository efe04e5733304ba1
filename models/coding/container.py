"""The file: one self-describing container per image.

Section 1 of docs/format.md is its description, byte by byte: `pack` writes what stands there, and
`_parse` reads it. A Kodak image's header and checksum are 32 bytes for a model with z and y.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate, pairwise
from pathlib import Path

from models.coding.gain import LEAST, MOST, UNIT
from models.errors import StreamError
from models.presets import METRICS, STUDIED

MAGIC = b"LIC"
PLAIN, GAINED = 1, 2  # format versions
NAMED = 128
# A thin image is padded to whole blocks of 64 x 64: its area alone does not bound its cost.
MAX_SIDE = 1 << 20
MAX_STREAMS = 16
LONGEST_HEADER = 512  # bytes; the longest that the format allows is below 250
# An escaped symbol takes up to 11 bytes, and 256 pixels have some hundred symbols.
BYTES_PER_PIXEL = 64


@dataclass(frozen=True)
class Header:
    """What a file says about itself; sizes in pixels and bytes."""

    model: str
    lmbda: float
    metric: str
    digest: str  # 16 hexadecimal digits
    height: int
    width: int
    lengths: tuple[int, ...]
    gain: float = 1.0  # a multiple of 1/4096, see `models.coding.gain`


def pack(header: Header, streams: Sequence[bytes]) -> bytes:
    """The complete file. `header.lengths` is taken from the streams.

    ValueError for an image that is too long for the format, or streams that are.
    """
    if max(header.height, header.width) > MAX_SIDE:
        raise ValueError(f"A side of an image may have {MAX_SIDE} pixels at most.")
    if sum(map(len, streams)) > _most_bytes(header.height, header.width):
        raise ValueError(f"Streams have at most {BYTES_PER_PIXEL} bytes for each padded pixel.")
    letters = header.model.encode("ascii")
    name = bytes([NAMED + len(letters)]) + letters
    if header.model in STUDIED:
        name = bytes([1 + STUDIED.index(header.model)])
    units = round(header.gain * UNIT)
    parts = [
        MAGIC,
        bytes([PLAIN if units == UNIT else GAINED]),
        name,
        bytes([METRICS.index(header.metric)]),
        struct.pack("<f", header.lmbda),
        bytes.fromhex(header.digest),
        b"" if units == UNIT else _varint(units),
        _varint(header.height),
        _varint(header.width),
        bytes([len(streams)]),
        *(_varint(len(s)) for s in streams),
        *streams,
    ]
    body = b"".join(parts)
    return body + struct.pack("<I", zlib.crc32(body))


def unpack(data: bytes) -> tuple[Header, list[bytes]]:
    """Header and streams of a complete file. StreamError when anything is wrong with it."""
    header, start = _parse(data)
    edges = list(accumulate(header.lengths, initial=start))
    size = edges[-1] + 4
    if len(data) != size:
        what = "cut short" if len(data) < size else "longer than it says"
        raise StreamError(f"The file is {what}: it should have {size} bytes.")
    if struct.pack("<I", zlib.crc32(memoryview(data)[:-4])) != data[-4:]:
        raise StreamError("The checksum does not match: the file was damaged on its way.")
    return header, [data[left:right] for left, right in pairwise(edges)]


def read_file(path: Path, max_pixels: int) -> tuple[bytes, Header]:
    """A file's bytes, not checked any further, and its header.

    StreamError, before more is read than it claims, for a claim of more than `max_pixels`.
    """
    with path.open("rb") as file:
        data = file.read(LONGEST_HEADER)
        header, start = _parse(data)
        check_pixels(header, max_pixels)
        left = start + sum(header.lengths) + 4 - len(data)
        return data + file.read(max(left, 0) + 1), header  # one more tells whether it is longer


def scan_file(path: Path) -> tuple[Header, int]:
    """The header and the size in bytes of a complete file, of any pixels; as `unpack`."""
    data, header = read_file(path, MAX_SIDE**2)
    unpack(data)
    return header, len(data)


def read_header(data: bytes) -> Header:
    """The header alone, which may be all of `data`. StreamError when it is not one."""
    return _parse(data)[0]


def padded(height: int, width: int, multiple: int) -> tuple[int, int]:
    """Height and width, each rounded up to a multiple."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def _most_bytes(height: int, width: int) -> int:
    """Of the streams of an image."""
    height, width = padded(height, width, 64)
    return BYTES_PER_PIXEL * height * width


def check_pixels(header: Header, max_pixels: int, multiple: int = 1) -> None:
    """Refuse a claim of more pixels than allowed, before any memory is spent on it.

    `multiple`: the image is coded padded to its multiples, and what is padded costs as much.
    """
    height, width = padded(header.height, header.width, multiple)
    if height * width > max_pixels:
        claim = f"{header.height} x {header.width} pixels"
        if (height, width) != (header.height, header.width):
            claim += f", padded to {height} x {width}"
        raise StreamError(
            f"The file claims {claim}, more than the limit of {max_pixels}; "
            "raise --max_pixels if that is right."
        )


def _parse(data: bytes) -> tuple[Header, int]:
    reader = _Bytes(data)
    if reader.read(3) != MAGIC:
        raise StreamError("This is not a file compressed by this program.")
    version = reader.byte()
    if version not in (PLAIN, GAINED):
        raise StreamError(f"The format version is {version}; this program reads 1 and 2.")
    model = _model_name(reader)
    metric = reader.byte()
    if metric >= len(METRICS):
        raise StreamError(f"The header names an unknown metric, {metric}.")
    (lmbda,) = struct.unpack("<f", reader.take(4))
    if not 0 <= lmbda < float("inf"):
        raise StreamError("The header's lambda is not a number that a codec can have.")
    digest = reader.take(8).hex()
    gain = reader.varint() / UNIT if version == GAINED else 1.0
    if not LEAST <= gain <= MOST:
        raise StreamError(f"The header's gain is {gain:g}; one is {LEAST:g} to {MOST:g}.")
    height, width = reader.varint(), reader.varint()
    if not (1 <= min(height, width) <= max(height, width) <= MAX_SIDE):
        raise StreamError(
            f"The header claims {height} x {width} pixels; a side has 1 to {MAX_SIDE}."
        )
    count = reader.byte()
    if count > MAX_STREAMS:
        raise StreamError(f"The header claims {count} streams; there are at most {MAX_STREAMS}.")
    lengths = tuple(reader.varint() for _ in range(count))
    if sum(lengths) > _most_bytes(height, width):
        raise StreamError(
            f"The header claims {sum(lengths)} bytes for {height} x {width} pixels, which no image "
            "takes."
        )
    lmbda = float(f"{lmbda:.6g}")
    header = Header(model, lmbda, METRICS[metric], digest, height, width, lengths, gain)
    return header, reader.tell()


def _model_name(reader: _Bytes) -> str:
    code = reader.byte()
    if code >= NAMED:
        letters = reader.take(code - NAMED).decode("latin-1")
        if not (letters.isascii() and letters.isidentifier()):
            raise StreamError("The header's model name is not a name.")
        return letters
    if not 1 <= code <= len(STUDIED):
        raise StreamError(f"The header names an unknown model, {code}.")
    return STUDIED[code - 1]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Bytes(BytesIO):
    """The header, read from its start on, that says so when the data end."""

    def take(self, count: int) -> bytes:
        part = self.read(count)
        if len(part) < count:
            raise StreamError("The file is cut short: it ends inside its header.")
        return part

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise StreamError("The header holds a number that is too long.")
