"""Cases: damaged files decoded one after another, and what became of them."""

from __future__ import annotations

import faulthandler
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch

from models.base import Codec
from models.coding.container import read_header
from models.errors import StreamError
from tests.fuzz.damage import mutate, put_together, take_apart
from tests.helpers import image, latents_of, peak_memory

MAX_PIXELS = 1 << 13  # of a fuzzed claim: bounds the work of a case
SIZES = ((1, 1), (64, 64), (40, 90), (33, 65))
TIME_LIMIT = 300.0  # seconds for one case, of which a usual one takes a few thousandths
MEMORY_LIMIT = 256 << 20  # bytes that the whole run may grow by, once it is warm


class Escaped(AssertionError):
    """A damaged file did something else than fail in words or decode."""


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
    """What became of the cases, by model, with the sentences of refusals by kind."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    refusals: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    growth: int = 0  # of the process's memory at its largest, in bytes

    @property
    def images(self) -> int:
        return sum(tally.decoded for tally in self.tallies.values())


def real_files(model: Codec) -> list[bytes]:
    """Files of several sizes, from images and from latents with many escapes."""
    files = [model.compress(image(*size))[0] for size in SIZES]
    with torch.no_grad():
        extreme = latents_of(model, 64, 64)
    wild = [stream[0] for stream in model.encode(extreme)]
    fields = take_apart(files[1])
    lengths = tuple(map(len, wild))
    files += model.compress(image(64, 64), 0.72)
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
    progress: Callable[[str], None] = lambda note: None,
) -> Report:
    """Decode `cases` damaged files. Escaped, with the file in hexadecimal, if memory grows."""
    report = Report()
    before = 0
    for number, (model, data) in zip(range(cases), damaged_files(models, seed), strict=False):
        if number == min(100, cases // 10):
            before = peak_memory()
        name = type(model).__name__
        tally = report.tallies.setdefault(name, Tally(name))
        tally.cases += 1
        # Also inside native code, where no Python signal handler would run.
        faulthandler.dump_traceback_later(TIME_LIMIT, exit=True, file=sys.__stderr__)
        start = time.process_time()
        try:
            sentence = attempt(model, data)
        except Escaped as error:
            tally.failures += 1
            report.failures.append(f"{error} (case {number}, seed {seed}, {name}): {data.hex()}")
        else:
            tally.refused += bool(sentence)
            tally.decoded += not sentence
            if sentence:
                report.refusals[kind(sentence)] += 1
        finally:
            faulthandler.cancel_dump_traceback_later()
        tally.seconds += time.process_time() - start
        report.growth = peak_memory() - before if before else 0
        if report.growth > MEMORY_LIMIT:
            raise Escaped(f"Memory grew by {report.growth >> 20} MiB, {name}: {data.hex()}")
        progress(f"{len(report.failures)} fail, memory +{report.growth >> 20} MiB")
    return report


def kind(sentence: str) -> str:
    """The beginning of a refusal, without the numbers that make it unique."""
    return " ".join(re.sub(r"\w*\d\w*", "#", sentence).split()[:6])
