"""Seconds and memory of encoding and decoding: ours beside CompressAI's, with trained weights.

    python -m benchmarks speed                     # some 20 minutes; an otherwise idle machine
    python -m benchmarks speed --models Hyperprior --sizes 1536x2048 3000x4000 --rounds 3

CompressAI's classes get the weights of our checkpoints; Checkerboard has no twin there. All codecs
code one photograph in one process, in turn, round after round, so that what disturbs the machine
disturbs all alike; a first round warms up. Encoding is image to bytes, decoding bytes to image.

Writes speed.csv after each size, a row for each codec and direction, beside the rows of other
models and sizes: median, least and most seconds of the rounds; of ours, medians of the parts:
`transforms_s` (g_a and h_a, or g_s) and `entropy_s` (all the rest: integer networks, context, range
coder); the median over the rounds of CompressAI's seconds over ours; and the peak memory of a
process that codes once and does nothing else: its own, or with --device cuda the device's.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.records import number, print_table, write_beside
from evaluation.photographs import open_photographs
from evaluation.reference import import_compressai
from models import MODELS, canonical_name, checkpoint
from models.base import Codec, pad
from models.cli import Progress, choose_device
from models.convert import to_compressai
from models.errors import UsageError
from models.images import to_tensor
from models.layers.bf16 import PRECISIONS, computes_in_bf16
from models.presets import TWINS, digits

STAGE = {"encode": "analysis", "decode": "synthesis"}  # methods of `Codec`: the transforms
COMPRESSAI, OVER = "CompressAI", "compressai_over_ours"


def alternate(
    tasks: Mapping[Any, Callable[[], Any]], rounds: int, step: Callable[[], None]
) -> dict[Any, list[Any]]:
    """What each task returns in each round: all tasks in turn, then all of them again.

    A first round more, which warms up, is left out. `step` is called after each task.
    """
    results: dict[Any, list[Any]] = {key: [] for key in tasks}
    for turn in range(rounds + 1):
        for key, task in tasks.items():
            result = task()
            if turn:
                results[key].append(result)
            step()
    return results


def clock(device: torch.device) -> float:
    """Seconds, once a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def spread(seconds: Sequence[float]) -> dict[str, str]:
    """Median, least and most of the rounds, as columns of a CSV."""
    values = {"seconds": median(seconds), "least": min(seconds), "most": max(seconds)}
    return {name: number(value) for name, value in values.items()}


def size(text: str) -> tuple[int, int]:
    """The value of --sizes: rows x columns, such as 512x768."""
    height, width = map(int, text.split("x"))
    if min(height, width) < 1:
        raise ValueError(text)
    return height, width


def picture(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of a photograph, uint8 (height, width, 3); mirrored where it is too small."""
    lack = [max(0, side - own) for side, own in zip((height, width), pixels.shape, strict=False)]
    pixels = np.pad(pixels, ((0, lack[0]), (0, lack[1]), (0, 0)), mode="symmetric")
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def coder(model: Codec, codec: str) -> dict[str, Callable]:
    """Image (1, 3, H, W) to file, file to image: ours in a precision `codec`, or CompressAI's,
    its model of the same weights."""
    if codec != COMPRESSAI:
        return {
            "encode": lambda x: model.use(codec).compress(x),
            "decode": lambda file: model.use(codec).decompress(file),
        }
    architectures = import_compressai().zoo.image.model_architectures
    twin = architectures[TWINS[type(model).__name__].architecture](model.N, model.M).eval()
    twin.load_state_dict(to_compressai(model))
    twin.update(force=True)
    twin.to(next(model.parameters()).device)
    return {
        "encode": lambda x: twin.compress(pad(x, model.downsampling)),  # ours pads by itself
        "decode": lambda file: twin.decompress(**file)["x_hat"],
    }


def bits(file: Any) -> int:
    """Of what `coder` encodes to: our files, or CompressAI's strings."""
    return 8 * sum(len(s[0]) for s in file["strings"]) if isinstance(file, dict) else 8 * len(*file)


def split(work: Callable, model: Codec, stage: str, device: torch.device) -> tuple[float, float]:
    """Seconds of work(), and those that it spends in the model's method `stage`."""
    method, parts = getattr(model, stage), [0.0]

    def watched(*arguments: Any) -> Any:
        started = clock(device)
        result = method(*arguments)
        parts.append(clock(device) - started)
        return result

    setattr(model, stage, watched)  # in place of the class's, until it is taken away
    started = clock(device)
    try:
        work()
    finally:
        delattr(model, stage)
    return clock(device) - started, sum(parts)


@torch.no_grad()
def peak_memory(path: Path, codec: str, direction: str, data: Any, device: str) -> float:
    """The most memory, in 10**6 bytes, of this process, or of a GPU, that has loaded a checkpoint
    and coded an image (H, W, 3) or a file."""
    work = coder(checkpoint.load(path, device), codec)[direction]
    work(to_tensor(data).to(device) if direction == "encode" else data)
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status").read_text()  # `getrusage` counts what the parent had, too
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def alone(work: Callable[[], Any]) -> Any:
    """work() in a new process. UsageError if that is killed."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(work).result()
    except BrokenProcessPool:
        raise UsageError(
            "The process that measures memory was killed: name smaller --sizes, or --no_memory."
        ) from None


def measure(
    paths: Sequence[Path], pixels: np.ndarray, precisions: Sequence[str],
    device: torch.device, rounds: int, memory: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of speed.csv for the models of these checkpoints and one image (H, W, 3)."""
    x = to_tensor(pixels).to(device)
    height, width = pixels.shape[:2]
    rows, tasks, children = {}, {}, {}
    for path in paths:
        model = checkpoint.load(path, device)
        name = type(model).__name__
        for codec in (*precisions, *([COMPRESSAI] if name in TWINS else [])):
            work = coder(model, codec)
            file = work["encode"](x)
            for direction, data, sent in (("encode", x, pixels), ("decode", file, file)):
                key = name, codec, direction
                rows[key] = {
                    "model": name, "lmbda": digits(model.point.lmbda), "N": model.N, "M": model.M,
                    "codec": codec, "direction": direction, "height": height, "width": width,
                    "megapixels": number(height * width / 1e6, 3),
                    "bpp": number(bits(file) / (height * width)), "device": str(device),
                }  # fmt: skip
                once = partial(work[direction], data)
                tasks[key] = partial(split, once, model, STAGE[direction], device)
                children[key] = partial(peak_memory, path, codec, direction, sent, str(device))
    steps = len(tasks) * (rounds + 1 + memory)
    with Progress(f"{height}x{width}", steps, "measurement") as progress:
        for key, child in children.items():
            rows[key]["peak_mb"] = f"{alone(child):.0f}" if memory else ""
            if memory:
                progress.step()
        seconds = alternate(tasks, rounds, progress.step)
    for key, row in rows.items():
        whole, stage = (np.array(part) for part in zip(*seconds[key], strict=True))
        row |= spread(whole) | dict.fromkeys(("transforms_s", "entropy_s", OVER), "")
        if row["codec"] != COMPRESSAI:
            row["transforms_s"] = number(median(stage))
            row["entropy_s"] = number(median(whole - stage))
            if theirs := seconds.get((row["model"], COMPRESSAI, row["direction"])):
                row[OVER] = number(median(np.array(theirs)[:, 0] / whole), 3)
    return list(rows.values())


def configure_timing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sizes", nargs="+", type=size, default=[(512, 768), (1344, 1360)], metavar="HxW",
        help="rows x columns (default: 512x768 1344x1360)")  # fmt: skip
    add("--lmbda", type=float, default=0.025, help="of the checkpoints (default: %(default)s)")
    add("--rounds", type=int, choices=range(1, 1000), default=5, metavar="N",
        help="default: %(default)s")  # fmt: skip
    add("--image", type=Path, metavar="PATH", help="a photograph, or a folder, whose first one is "
        "taken; cropped or mirrored to each size (default: a built-in one)")  # fmt: skip
    add("--ckpt_dir", type=Path, default=checkpoint.STUDY, metavar="DIR",
        help="folder of the checkpoints (default: %(default)s)")  # fmt: skip
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")


def configure(parser: argparse.ArgumentParser) -> None:
    configure_timing(parser)
    add = parser.add_argument
    add("--models", nargs="+", type=canonical_name, default=list(MODELS), metavar="NAME",
        help="default: all four")  # fmt: skip
    add("--precision", nargs="+", choices=PRECISIONS, help="of our transforms (default: fp32, and "
        "bf16 where the device computes in it)")  # fmt: skip
    add("--no_memory", action="store_true", help="do not start the processes that measure memory")


@torch.no_grad()
def run(options: argparse.Namespace) -> int:
    """Measure size after size. CheckpointError, ImageError or UsageError for what is missing."""
    device = choose_device(options.device)
    precisions = options.precision or PRECISIONS[: 1 + computes_in_bf16(device)]
    find = partial(checkpoint.find, root=options.ckpt_dir, lmbda=options.lmbda)
    paths = [find(name)[-1] for name in options.models]
    pixels = open_photographs(options.image)[0].read()
    rows: list[dict[str, Any]] = []
    for sides in options.sizes:
        image = picture(pixels, *sides)
        rows += measure(paths, image, precisions, device, options.rounds, not options.no_memory)
        keys = ("model", "lmbda", "height", "width", "device")
        write_beside(options.outdir / "speed.csv", rows, keys, str(device))
    print_table(rows)
    return 0
