"""Damage: files taken apart so that every field can lie, and what is done to their bytes."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from models.coding.container import unpack

EXTREMES = (0, 1, 2, 63, 64, 65, 127, 128, 255, 4096, 65535, 65536, 2**20, 2**31, 2**35 - 1)


@dataclass(frozen=True)
class Fields:
    """A file's fields as they are written; nothing here need be true."""

    magic: bytes
    version: int
    model: bytes
    metric: int
    lmbda: bytes
    digest: bytes
    gain: bytes  # b"" where the version has none
    height: int
    width: int
    count: int
    lengths: tuple[int, ...]
    streams: tuple[bytes, ...]


def take_apart(data: bytes) -> Fields:
    """The fields of a sound file of a model of this repository."""
    header, streams = unpack(data)
    height, width = header.height, header.width
    gain = varint(round(header.gain * 4096)) if data[3] == 2 else b""
    parts = (data[:3], data[3], data[4:5], data[5], data[6:10], data[10:18], gain, height, width)
    return Fields(*parts, len(streams), header.lengths, tuple(streams))


def put_together(fields: Fields) -> bytes:
    """The file with those fields and the right checksum."""
    body = fields.magic + bytes([fields.version]) + fields.model + bytes([fields.metric])
    body += fields.lmbda + fields.digest + fields.gain
    body += varint(fields.height) + varint(fields.width) + bytes([fields.count])
    body += b"".join(map(varint, fields.lengths)) + b"".join(fields.streams)
    return body + checksum(body)


def checksum(body: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(body))


def varint(value: int) -> bytes:
    """7 bits a byte, lowest first, the high bit on all but the last."""
    low = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([b | 128 for b in low[:-1]] + low[-1:])


# Mutations: (generator, file, another file) -> damaged file ------------------------------------


def flip(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Some bits flipped."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A run of bytes replaced by zeros, ones, or anything."""
    start, stop = span(rng, data)
    fill = rng.choice((b"\x00", b"\xff", None))
    run = rng.randbytes(stop - start) if fill is None else fill * (stop - start)
    return data[:start] + run + data[stop:]


def cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The end, the beginning, or a piece between left out."""
    start, stop = span(rng, data)
    return rng.choice((data[:start], data[stop:], data[:start] + data[stop:]))


def repeat(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A piece written more than once."""
    start, stop = span(rng, data)
    return data[:stop] + data[start:stop] * rng.choice((1, 2, 30)) + data[stop:]


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The beginning of one file, the end of another."""
    if rng.random() < 0.5:
        return data[: span(rng, data)[0]] + other[span(rng, other)[0] :]
    mine, theirs = take_apart(data), take_apart(other)
    streams = tuple(rng.choice((mine, theirs)).streams[-k - 1 :][:1] for k in range(mine.count))
    flat = tuple(part for stream in streams for part in stream)
    return put_together(replace(mine, streams=flat, lengths=tuple(map(len, flat))))


def header_field(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Fields of the header at extremes, with the rest of the file sound."""
    fields = take_apart(data)
    for _ in range(rng.choice((1, 1, 1, 3))):
        fields = replace(fields, **lie(rng, fields))
    return put_together(fields)


def lie(rng: random.Random, fields: Fields) -> dict:
    number = rng.choice((*EXTREMES, rng.randrange(1, 200)))
    lengths = list(fields.lengths)
    if lengths:
        lengths[rng.randrange(len(lengths))] = number
    name = rng.randbytes(rng.randrange(4))
    return rng.choice(
        (
            {"height": number},
            {"width": number},
            {"height": rng.randrange(1, 129), "width": rng.randrange(1, 65)},
            {"lengths": tuple(lengths)},
            {"lengths": tuple(rng.choice(EXTREMES) for _ in range(rng.randrange(4)))},
            {"count": rng.choice((0, 1, 3, 16, 17, 255))},
            {"version": rng.choice((0, 2, 255))},
            {"model": rng.choice((bytes([rng.randrange(256)]), bytes([128 + len(name)]) + name))},
            {"version": 2, "gain": varint(rng.choice((number, rng.randrange(256, 65537))))},
            {"metric": rng.randrange(256)},
            {"lmbda": rng.choice((rng.randbytes(4), struct.pack("<f", float("nan"))))},
            {"digest": rng.choice((bytes(8), rng.randbytes(8)))},
            {"magic": rng.choice((b"", b"LIC", b"PNG", b"LICLIC"))},
        )
    )


def stream_content(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Damaged streams in a sound file: what a checksum cannot see."""
    fields = take_apart(data)
    streams = list(fields.streams)
    for _ in range(rng.choice((1, 1, 2))):
        k = rng.randrange(len(streams))
        streams[k] = rng.choice(STREAM_DAMAGES)(rng, streams[k] or bytes(4))
    if rng.random() < 0.1:
        rng.shuffle(streams)
    lengths = tuple(map(len, streams))
    return put_together(replace(fields, streams=tuple(streams), lengths=lengths))


def noise(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Nothing of the file is left, but perhaps its beginning."""
    return data[: rng.choice((0, 3, 4, 18, 24))] + rng.randbytes(rng.randrange(300))


STREAM_DAMAGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    lambda rng, s: flip(rng, s, b""),
    lambda rng, s: overwrite(rng, s, b""),
    lambda rng, s: cut(rng, s, b""),
    lambda rng, s: s[: rng.randrange(len(s) + 1) // 4 * 4],
    lambda rng, s: s + rng.randbytes(4 * rng.randrange(1, 5)),
    lambda rng, s: rng.randbytes(len(s) // 4 * 4),
    lambda rng, s: b"\xff" * (len(s) // 4 * 4),
    lambda rng, s: b"",
)
MUTATIONS = (flip, overwrite, cut, repeat, splice, header_field, stream_content, noise)


def span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, len(data))))


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One damaged file; half of the time with a checksum that fits the damage."""
    damaged = rng.choice(MUTATIONS)(rng, data, other)
    if rng.random() < 0.5 and len(damaged) > 4:
        damaged = damaged[:-4] + checksum(damaged[:-4])
    return damaged
