"""The measurement on real files: write, read back in another process, decode, compare.

The decoder's process loads the point a second time and is told nothing but the names of files: from
encoder to decoder all passes through the disk.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout

from evaluation.metrics import ms_ssim, psnr
from evaluation.photographs import Photograph
from evaluation.points import PixelCodec, Point
from evaluation.results import Results
from evaluation.tables import Row
from models.cli import Progress, sentence
from models.errors import UsageError
from models.files import locked, write_bytes
from models.images import read_image, write_image
from models.presets import digits

SUFFIX = ".lic"


@dataclass(frozen=True)
class Measured:
    """What the test of a model gave: rows of this run, and `stored` with those of former runs.

    <folder>/lmbda_<lambda> holds the files and decoded images of an operating point.
    """

    name: str
    folder: Path
    rows: list[Row]
    stored: list[Row]


def measure_points(
    name: str,
    points: Sequence[Point],
    photographs: list[Photograph],
    folder: Path,
    results: Results,
) -> Measured:
    """Evaluate a model's operating points and store the rows of each as soon as it is done.

    UsageError, CheckpointError or ImageError for what goes wrong.
    """
    rows: list[Row] = []
    stored = results.check({(p.name, p.width, p.height) for p in photographs})
    for point in points:
        label = f"lambda {digits(point.lmbda)}"
        print(f"{name}, {label}: {point.source}", flush=True)
        place = point_folder(folder, point.lmbda)
        try:
            with locked(place, wait=False), Progress(label, len(photographs), "image") as progress:
                new = evaluate(point, photographs, place, progress.step)
        except Timeout:
            raise UsageError(
                f"Another process is testing into {place}: choose another --outdir."
            ) from None
        stored = results.merge(new)
        rows += new
    return Measured(name, folder, rows, stored)


def point_folder(folder: Path, lmbda: float) -> Path:
    """Files and decoded images of one operating point."""
    return folder / f"lmbda_{digits(lmbda)}"


class DecoderProcess:
    """A process with a codec of its own; `decode(file, image)` has it write an image file.

    Usable in a `with` block, which ends the process. Ctrl-C reaches the parent only.
    """

    def __init__(self, point: Point):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(point, theirs), daemon=True)
        # An ignored signal stays ignored in a child; the parent ends it after Ctrl-C.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def __enter__(self) -> DecoderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def wait_until_ready(self) -> None:
        """Return when the codec is loaded and warm. UsageError if that fails."""
        self._receive()

    def decode(self, source: Path, target: Path) -> float:
        """Decode the file `source` into the image `target`; seconds from bytes to pixels."""
        with contextlib.suppress(OSError):  # it has died: the answer says how
            self.connection.send((source, target))
        return self._receive()

    def _receive(self) -> float:
        try:
            seconds, problem = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise UsageError(
                f"The decoder process ended unexpectedly (exit code {self.process.exitcode}); "
                "perhaps the machine ran out of memory."
            ) from None
        if problem:
            raise UsageError(problem)
        return seconds


def _serve(point: Point, connection: Any) -> None:
    """The decoder process: load, then answer (file, image) with (seconds, problem)."""
    source = point.source
    try:
        codec = point.load()
        warm_up(codec)
        connection.send((0.0, None))
        while True:
            source, target = connection.recv()
            data = source.read_bytes()
            start = time.perf_counter()
            pixels = codec.decode(data)
            seconds = time.perf_counter() - start
            write_image(target, pixels)
            connection.send((seconds, None))
    except (EOFError, ConnectionError):
        return  # the parent is done, or was killed
    except Exception as error:
        line = sentence(error)
        if line is None:
            raise
        connection.send((0.0, line if str(source) in line else f"{source}: {line}"))


def warm_up(codec: PixelCodec) -> None:
    """Code a small grey image, so that no measured time holds what happens only once."""
    codec.decode(codec.encode(np.full((64, 64, 3), 128, dtype=np.uint8)))


def evaluate(
    point: Point,
    photographs: list[Photograph],
    folder: Path,
    progress: Callable[[], None] = lambda: None,
) -> list[Row]:
    """One row per image: real bytes, metrics of the decoded 8-bit image, seconds.

    Writes <folder>/<stem>.lic and, by the decoder, <folder>/<stem>.png. `progress` is
    called after each image. UsageError, CheckpointError or ImageError for what goes wrong.
    """
    codec = point.load()
    rows = []
    try:
        with DecoderProcess(point) as decoder:
            warm_up(codec)
            decoder.wait_until_ready()
            for photograph in photographs:
                rows.append(_measure(point, codec, decoder, photograph, folder))
                progress()
    finally:
        for place in {output_paths(folder, photograph)[0].parent for photograph in photographs}:
            for rest in place.glob(".*.tmp"):  # of a decoder that was killed while it wrote
                rest.unlink()
    return rows


def _measure(
    point: Point, codec: PixelCodec, decoder: DecoderProcess, photograph: Photograph, folder: Path
) -> Row:
    pixels = photograph.read()
    file, image = output_paths(folder, photograph)
    start = time.perf_counter()
    try:
        data = codec.encode(pixels)
    except ValueError as error:
        raise UsageError(f"{photograph.name} cannot be compressed: {error}") from error
    encoding = time.perf_counter() - start
    write_bytes(file, data)
    decoding = decoder.decode(file, image)
    count = photograph.width * photograph.height
    decoded = read_image(image, count)
    if decoded.shape != pixels.shape:
        raise UsageError(f"{photograph.name} came back as {decoded.shape}, not {pixels.shape}.")
    estimate = codec.estimate(pixels)
    if not math.isfinite(estimate):
        raise UsageError(f"{point.source} estimates {estimate} bits for {photograph.name}.")
    bits = 8 * file.stat().st_size
    return {
        "lmbda": point.lmbda, "image": photograph.name,
        "width": photograph.width, "height": photograph.height,
        "bits": bits, "bpp": bits / count, "estimate_bpp": estimate / count,
        "psnr": psnr(pixels, decoded), "ms_ssim": ms_ssim(pixels, decoded),
        "time(enc)": encoding, "time(dec)": decoding,
    }  # fmt: skip


def output_paths(folder: Path, photograph: Photograph) -> tuple[Path, Path]:
    """The compressed file and the decoded image of a photograph."""
    return folder / f"{photograph.stem}{SUFFIX}", folder / f"{photograph.stem}.png"
