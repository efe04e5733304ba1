"""Damaged files by the thousand: each must end in StreamError or in an image of its size.

    python -m tests.fuzz --cases 100000 [--seed 0] [--models Hyperprior ...] [--out FILE]

Real files of each model are damaged in the ways of `MUTATIONS`, half of them with the
checksum made right again, so that the damage reaches the decoder. Any other exception (also
those that do not derive from Exception, as a native library's panics), an image of another
size, a case that does not end or memory that grows ends the run with the file
and the seed that reproduce it. With --out, failures are printed and counted instead, and the
counts of each model are written as a CSV, such as statistics/fuzz.csv of the report.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import re
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch

from models.base import Codec
from models.coding.container import read_header, unpack
from models.errors import StreamError
from models.files import csv_text, write_text
from tests.helpers import NAMES, codec, image, latents_of

MAX_PIXELS = 1 << 13  # of a fuzzed claim: bounds the work of a case
SIZES = ((1, 1), (64, 64), (40, 90), (33, 65))
TIME_LIMIT = 300.0  # seconds for one case, of which a usual one takes a few thousandths
MEMORY_LIMIT = 256 << 20  # bytes that the whole run may grow by, once it is warm
EXTREMES = (0, 1, 2, 63, 64, 65, 127, 128, 255, 4096, 65535, 65536, 2**20, 2**31, 2**35 - 1)


class Escaped(AssertionError):
    """A damaged file did something else than fail in words or decode."""


# Files taken apart, so that every field can lie ------------------------------------------------


@dataclass(frozen=True)
class Fields:
    """A file's fields as they are written; nothing here need be true."""

    magic: bytes
    version: int
    model: bytes
    metric: int
    lmbda: bytes
    digest: bytes
    height: int
    width: int
    count: int
    lengths: tuple[int, ...]
    streams: tuple[bytes, ...]


def take_apart(data: bytes) -> Fields:
    """The fields of a sound file of a model of this repository."""
    header, streams = unpack(data)
    height, width = header.height, header.width
    parts = (data[:3], data[3], data[4:5], data[5], data[6:10], data[10:18], height, width)
    return Fields(*parts, len(streams), header.lengths, tuple(streams))


def put_together(fields: Fields) -> bytes:
    """The file with those fields and the right checksum."""
    numbers = (fields.height, fields.width)
    body = b"".join(
        (
            fields.magic,
            bytes([fields.version]),
            fields.model,
            bytes([fields.metric]),
            fields.lmbda,
            fields.digest,
            *map(varint, numbers),
            bytes([fields.count]),
            *map(varint, fields.lengths),
            *fields.streams,
        )
    )
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


# Cases ------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of one model's cases; seconds are of decoding alone."""

    model: str
    cases: int = 0
    refused: int = 0
    decoded: int = 0
    failures: int = 0
    seconds: float = 0.0


@dataclass
class Report:
    """What became of the cases: images, and the sentences of refusals by kind."""

    cases: int = 0
    images: int = 0
    refusals: Counter = field(default_factory=Counter)
    growth: int = 0  # of the process's memory at its largest, in bytes
    tallies: dict[str, Tally] = field(default_factory=dict)
    failures: list[Escaped] = field(default_factory=list)

    def add(self, model: str, outcome: str | Escaped, seconds: float) -> None:
        """Count a case: "" for an image, the sentence of a refusal, or a failure."""
        tally = self.tallies.setdefault(model, Tally(model))
        self.cases += 1
        tally.cases += 1
        tally.seconds += seconds
        if isinstance(outcome, Escaped):
            self.failures.append(outcome)
            tally.failures += 1
        elif outcome:
            self.refusals[kind(outcome)] += 1
            tally.refused += 1
        else:
            self.images += 1
            tally.decoded += 1


def real_files(model: Codec) -> list[bytes]:
    """Files of several sizes, from images and from latents with many escapes."""
    files = [model.compress(image(*size))[0] for size in SIZES]
    with torch.no_grad():
        extreme = latents_of(model, 64, 64)
    wild = [stream[0] for stream in model.encode(extreme)]
    fields = take_apart(files[1])
    lengths = tuple(map(len, wild))
    return [*files, put_together(replace(fields, streams=tuple(wild), lengths=lengths))]


def attempt(model: Codec, data: bytes) -> str:
    """ "" if the file decodes, else the sentence. Escaped for anything that must not be."""
    try:
        out = model.decompress([data], max_pixels=MAX_PIXELS)
    except StreamError as error:
        sentence = str(error)
        if not sentence or "\n" in sentence:
            raise Escaped(f"The refusal is not one sentence: {sentence!r}") from error
        return sentence
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a native library is no Exception
        raise Escaped(f"{type(error).__name__} came out of the decoder: {error}") from error
    header = read_header(data)
    if out.shape != (1, 3, header.height, header.width):
        raise Escaped(f"The image is {tuple(out.shape)}, declared {header.height, header.width}.")
    if not ((out >= 0) & (out <= 1)).all():
        raise Escaped("The image has pixels that are not in [0, 1].")
    return ""


def damaged_files(models: list[Codec], seed: int) -> Iterator[tuple[Codec, bytes]]:
    """Endless cases, the models in turn; the seed alone decides what they are."""
    rng = random.Random(seed)
    files = [real_files(model) for model in models]
    for model, mine in zip(models, files, strict=True):
        for data in mine:  # undamaged ones decode, and warm everything up
            if attempt(model, data):
                raise Escaped(f"A sound file is refused: {attempt(model, data)}")
    while True:
        for model, mine in zip(models, files, strict=True):
            yield model, mutate(rng, rng.choice(mine), rng.choice(rng.choice(files)))


def fuzz(
    models: list[Codec],
    cases: int,
    seed: int = 0,
    progress: Callable[[Report], None] | None = None,
    go_on: bool = False,
) -> Report:
    """Decode `cases` damaged files. Escaped, with the file in hexadecimal, if one breaks out.

    `go_on`: failures are kept in the report instead, except that of growing memory.
    """
    report = Report()
    source = damaged_files(models, seed)
    before = 0
    for number in range(cases):
        model, data = next(source)
        if number == min(100, cases // 10):
            before = peak_memory()
        # Also inside native code, where no Python signal handler would run.
        faulthandler.dump_traceback_later(TIME_LIMIT, exit=True, file=sys.__stderr__)
        name = type(model).__name__
        start = time.process_time()
        outcome: str | Escaped
        try:
            outcome = attempt(model, data)
        except Escaped as error:
            outcome = Escaped(f"{error} (case {number}, seed {seed}, {name}): {data.hex()}")
            if not go_on:
                raise outcome from error
        finally:
            faulthandler.cancel_dump_traceback_later()
        report.add(name, outcome, time.process_time() - start)
        report.growth = peak_memory() - before
        if before and report.growth > MEMORY_LIMIT:
            raise Escaped(
                f"Memory grew by {report.growth >> 20} MiB by case {number}: {data.hex()}"
            )
        if progress:
            progress(report)
    return report


def kind(sentence: str) -> str:
    """The beginning of a refusal, without the numbers that make it unique."""
    return " ".join(re.sub(r"\w*\d\w*", "#", sentence).split()[:6])


def peak_memory() -> int:
    """The largest memory this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def show(report: Report, cases: int) -> None:
    """A progress line that overwrites itself."""
    if report.cases % 200 == 0 or report.cases == cases:
        refused = report.cases - report.images - len(report.failures)
        line = f"{report.cases}/{cases} cases: {report.images} images, {refused} refused"
        print(f"\r{line}, memory +{report.growth >> 20} MiB", end="", file=sys.stderr, flush=True)


def table(report: Report) -> str:
    """The tallies as CSV, one row per model."""
    rows = [{**asdict(t), "seconds": f"{t.seconds:.1f}"} for t in report.tallies.values()]
    return csv_text(rows, [field.name for field in fields(Tally)])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Decode damaged files until one breaks out."
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the counts as a CSV")
    flags = parser.parse_args(arguments)
    made = [codec(name) for name in flags.models]
    try:
        report = fuzz(
            made, flags.cases, flags.seed, lambda r: show(r, flags.cases), flags.out is not None
        )
    except Escaped as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    for words, count in report.refusals.most_common():
        print(f"{count:8}  {words} ...")
    print(f"{report.images:8}  decoded to an image of the declared size")
    for error in report.failures:
        print(error, file=sys.stderr)
    if flags.out:
        write_text(flags.out, table(report))
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
