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
from models.images import write_image
from models.presets import digits

SUFFIX = ".lic"


def measure_points(
    points: Sequence[Point], photographs: list[Photograph], folder: Path, results: Results
) -> list[Row]:
    """Evaluate a model's operating points, each into <folder>/lmbda_<lambda>; the rows, which go
    to its `results` point by point. UsageError, CheckpointError or ImageError."""
    rows: list[Row] = []
    for point in points:
        label = f"lambda {digits(point.lmbda)}"
        print(f"{results.name}, {label}: {point.source}", flush=True)
        place = folder / f"lmbda_{digits(point.lmbda)}"
        try:
            with locked(place, wait=False), Progress(label, len(photographs), "image") as progress:
                new = evaluate(point, photographs, place, progress.step)
        except Timeout:
            raise UsageError(
                f"Another process is testing into {place}: choose another --outdir."
            ) from None
        results.merge(new)
        rows += new
    return rows


class DecoderProcess:
    """A process with a codec of its own, loaded and warm, which ends with the `with` block.

    UsageError for what goes wrong there. Ctrl-C reaches the parent only.
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
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def decode(self, source: Path) -> tuple[np.ndarray, float]:
        """The image in a file, uint8 (H, W, 3), and the seconds from bytes to pixels."""
        with contextlib.suppress(OSError):  # it has died: the answer says how
            self.connection.send(source)
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise UsageError(
                f"The decoder process ended unexpectedly (exit code {self.process.exitcode}); "
                "perhaps the machine ran out of memory."
            ) from None
        if isinstance(answer, str):
            raise UsageError(answer)
        return answer


def _serve(point: Point, connection: Any) -> None:
    """The decoder process: load, then answer a file with its pixels and seconds, or a sentence."""
    source = point.source
    try:
        codec = point.load()
        warm_up(codec)
        connection.send(None)
        while True:
            source = connection.recv()
            data = source.read_bytes()
            start = time.perf_counter()
            pixels = codec.decode(data)
            connection.send((pixels, time.perf_counter() - start))
    except (EOFError, ConnectionError):
        return  # the parent is done, or was killed
    except Exception as error:
        line = sentence(error)
        if line is None:
            raise
        connection.send(f"{source}: {line}")


def warm_up(codec: PixelCodec) -> None:
    """Code a small grey image, so that no measured time holds what happens only once."""
    codec.decode(codec.encode(np.full((64, 64, 3), 128, dtype=np.uint8)))


def evaluate(
    point: Point, photographs: list[Photograph], folder: Path, progress: Callable[[], None]
) -> list[Row]:
    """One row per image: real bytes, metrics of the decoded 8-bit image, seconds.

    Writes <folder>/<stem>.lic, and what it decodes to, <folder>/<stem>.png, the row's `decoded`.
    `progress` is called after each image. UsageError, CheckpointError or ImageError for what goes
    wrong.
    """
    codec = point.load()
    warm_up(codec)
    rows = []
    with DecoderProcess(point) as decoder:
        for photograph in photographs:
            rows.append(_measure(point, codec, decoder, photograph, folder))
            progress()
    return rows


def _measure(
    point: Point, codec: PixelCodec, decoder: DecoderProcess, photograph: Photograph, folder: Path
) -> Row:
    pixels = photograph.read()
    file, image = (folder / f"{photograph.stem}{suffix}" for suffix in (SUFFIX, ".png"))
    start = time.perf_counter()
    try:
        data = codec.encode(pixels)
    except ValueError as error:
        raise UsageError(f"{photograph.name} cannot be compressed: {error}") from error
    encoding = time.perf_counter() - start
    write_bytes(file, data)
    decoded, decoding = decoder.decode(file)
    write_image(image, decoded)
    count = photograph.width * photograph.height
    estimate = codec.estimate(pixels)
    if not math.isfinite(estimate):
        raise UsageError(f"{point.source} estimates {estimate} bits for {photograph.name}.")
    bits = 8 * file.stat().st_size
    return {
        "lmbda": point.lmbda, "image": photograph.name,
        "width": photograph.width, "height": photograph.height,
        "bits": bits, "bpp": bits / count, "estimate_bpp": estimate / count,
        "psnr": psnr(pixels, decoded), "ms_ssim": ms_ssim(pixels, decoded),
        "time(enc)": encoding, "time(dec)": decoding, "decoded": image,
    }  # fmt: skip
