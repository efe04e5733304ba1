"""Evaluation on real files: write, read back in another process, decode, compare.

A `Point` is an operating point that can be loaded: it gives a `PixelCodec`, 8-bit pixels to
the bytes of a file and back. The decoder runs in a process of its own, which loads the point
a second time and is told nothing but the names of files, so nothing can pass from encoder to
decoder except through the disk.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

import models
from models import checkpoint
from models.base import Codec, pad
from models.checkpoint import CheckpointError
from models.coding.container import MAX_PIXELS
from models.drivers import UsageError, choose_device, sentence
from models.files import write_bytes
from models.images import (
    list_images,
    read_image,
    sample_photographs,
    to_tensor,
    to_uint8,
    write_image,
)
from models.metrics import ms_ssim, psnr
from models.presets import zoo_point
from models.results import Row

SUFFIX = ".lic"


class PixelCodec(Protocol):
    """Pixels are uint8 arrays (H, W, 3); `estimate` is the model's own estimate in bits."""

    def encode(self, pixels: np.ndarray) -> bytes:
        """The complete file of an image, uint8 (H, W, 3)."""
        ...

    def decode(self, data: bytes) -> np.ndarray:
        """The image, uint8 (H, W, 3), of a file; StreamError if it cannot be read."""
        ...

    def estimate(self, pixels: np.ndarray) -> float:
        """The model's own estimate for an image, uint8 (H, W, 3), in bits."""
        ...


class Point(Protocol):
    """A picklable description of one codec; every `load` makes a codec of its own."""

    @property
    def lmbda(self) -> float:
        """The lambda that results are filed under."""
        ...

    @property
    def source(self) -> str:
        """Where the weights come from, for the reader."""
        ...

    def load(self) -> PixelCodec:
        """A codec, ready to code. CheckpointError or UsageError if it cannot be had."""
        ...


class ModelCodec:
    """One of this repository's models as a `PixelCodec`."""

    def __init__(self, model: Codec, device: str, max_pixels: int = MAX_PIXELS):
        self.device = choose_device(device)
        self.model = model.to(self.device)
        self.max_pixels = max_pixels

    def encode(self, pixels: np.ndarray) -> bytes:
        """The complete file of an image, uint8 (H, W, 3). ValueError: see `Codec.encode`."""
        return self.model.compress(to_tensor(pixels).to(self.device))[0]

    def decode(self, data: bytes) -> np.ndarray:
        """The image, uint8 (H, W, 3), of a file; StreamError if it is not this model's."""
        return to_uint8(self.model.decompress([data], self.max_pixels))

    @torch.no_grad()
    def estimate(self, pixels: np.ndarray) -> float:
        """Bits of an image (H, W, 3) by `forward` with rounded latents, padded as it is coded."""
        x = pad(to_tensor(pixels).to(self.device), self.model.downsampling)
        return likelihood_bits(self.model(x, quantization="round"))


def likelihood_bits(out: dict[str, Any]) -> float:
    """-log2 of all likelihoods of a forward pass, summed."""
    return sum(-p.double().log2().sum().item() for p in out["likelihoods"].values())


@dataclass(frozen=True)
class TrainedPoint:
    """A checkpoint of this program. `modules` are imported first: they register models."""

    path: Path
    lmbda: float
    device: str = "cpu"
    modules: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS

    @property
    def source(self) -> str:
        """The path of the weights."""
        return str(self.path)

    def load(self) -> PixelCodec:
        """The codec, frozen as it was saved. CheckpointError."""
        for module in self.modules:
            importlib.import_module(module)
        return ModelCodec(checkpoint.load(self.path), self.device, self.max_pixels)


@dataclass(frozen=True)
class ImportedPoint:
    """Weights of CompressAI's twin of a model, frozen and coded here. `quality` 1 to 8."""

    path: Path
    model: str
    quality: int
    metric: str
    device: str = "cpu"
    max_pixels: int = MAX_PIXELS

    @property
    def lmbda(self) -> float:
        """That of the zoo for the quality and metric."""
        return zoo_point(self.model, self.quality, self.metric).lmbda

    @property
    def source(self) -> str:
        """The path of the weights."""
        return str(self.path)

    def load(self) -> PixelCodec:
        """The codec, frozen here. CheckpointError."""
        return ModelCodec(self.load_model().freeze(), self.device, self.max_pixels)

    def load_model(self) -> Codec:
        """The model, with its point and solved quantiles, not frozen. CheckpointError."""
        tensors = checkpoint.load_tensors(self.path)
        try:
            # The files say N and M by their shapes; an unusual width is no reason to refuse.
            N, M = tensors["g_a.0.weight"].shape[0], tensors["g_a.6.weight"].shape[0]
            model = models.build(self.model, N, M)
            model.load_state_dict(tensors)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{self.path} does not fit {self.model}: {reason}") from error
        model.point = zoo_point(self.model, self.quality, self.metric)
        model.solve_quantiles()
        return model


# The images ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photograph:
    """A test image that was seen to be readable; `stem` names its outputs, unique in a run."""

    name: str
    stem: str
    width: int
    height: int
    path: Path | None
    pixels: np.ndarray | None = field(repr=False, compare=False)

    def read(self) -> np.ndarray:
        """uint8 (H, W, 3); ImageError if the file has become unreadable."""
        if self.pixels is not None:
            return self.pixels
        assert self.path is not None
        return read_image(self.path, self.width * self.height)  # larger: it has changed since


def open_photographs(place: str | Path | None, max_pixels: int = MAX_PIXELS) -> list[Photograph]:
    """Every image of a folder, a single file, or (None) the built-in photographs.

    Each is decoded once now, so that a broken one is found before hours of work and not
    after them. ImageError that names it, also when it has more than `max_pixels`, or says
    that there is no image.
    """
    if place is None:
        return [
            Photograph(name, name, pixels.shape[1], pixels.shape[0], None, pixels)
            for name, pixels in sample_photographs()
        ]
    place = Path(place)
    paths = [place] if place.is_file() else list_images(place)
    stems = [path.stem for path in paths]
    found = []
    for path in paths:
        height, width = read_image(path, max_pixels).shape[:2]
        stem = path.stem if stems.count(path.stem) == 1 else path.name
        found.append(Photograph(path.name, stem, width, height, path, None))
    return found


# The decoder --------------------------------------------------------------------------------


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


# The measurement ----------------------------------------------------------------------------


def evaluate(
    point: Point,
    photographs: list[Photograph],
    folder: Path,
    progress: Callable[[Photograph], None] = lambda _: None,
) -> list[Row]:
    """One row per image: real bytes, metrics of the decoded 8-bit image, seconds.

    Writes <folder>/<stem>.lic and, by the decoder, <folder>/<stem>.png. `progress` is told
    each image that is done. UsageError, CheckpointError or ImageError for what goes wrong.
    """
    codec = point.load()
    rows = []
    with DecoderProcess(point) as decoder:
        warm_up(codec)
        decoder.wait_until_ready()
        for photograph in photographs:
            rows.append(_measure(point, codec, decoder, photograph, folder))
            progress(photograph)
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
    decoded = read_image(image, photograph.width * photograph.height)
    if decoded.shape != pixels.shape:
        raise UsageError(f"{photograph.name} came back as {decoded.shape}, not {pixels.shape}.")
    estimate = codec.estimate(pixels)
    if not math.isfinite(estimate):
        raise UsageError(f"{point.source} estimates {estimate} bits for {photograph.name}.")
    count = photograph.width * photograph.height
    bits = 8 * file.stat().st_size
    return Row(
        lmbda=point.lmbda,
        image=photograph.name,
        width=photograph.width,
        height=photograph.height,
        bits=bits,
        bpp=bits / count,
        psnr=psnr(pixels, decoded),
        ms_ssim=ms_ssim(pixels, decoded),
        estimate_bpp=estimate / count,
        encoding=encoding,
        decoding=decoding,
    )


def output_paths(folder: Path, photograph: Photograph) -> tuple[Path, Path]:
    """The compressed file and the decoded image of a photograph."""
    return folder / f"{photograph.stem}{SUFFIX}", folder / f"{photograph.stem}.png"
