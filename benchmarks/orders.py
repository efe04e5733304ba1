"""Seconds of entropy decoding by coding order: raster, wavefront, checkerboard.

    python -m benchmarks orders --sizes 512x768 1344x1360 2304x3456     # an otherwise idle machine

From the streams of a photograph to y_hat, without the synthesis, with the study's weights: Joint's
in raster order and as a wavefront, which give the same symbols, and Checkerboard's. The orders take
turns, round after round. Raster, with a step for each position, is measured at the smallest size
only.

Writes orders.csv after each size: median, least and most seconds of the rounds, by order and size.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.records import number, print_table, write_csv
from benchmarks.speed import alternate, clock, configure_timing, picture, spread
from evaluation.bits import Order
from evaluation.photographs import open_photographs
from models import load
from models.base import Codec, pad
from models.cli import Progress, choose_device
from models.coding.orders import checkerboard, raster, wavefront
from models.images import to_tensor
from models.presets import STUDIED

JOINT, CHECKERBOARD = STUDIED[2:]
ORDERS = {"raster": (JOINT, raster), "wavefront": (JOINT, wavefront),
          "checkerboard": (CHECKERBOARD, checkerboard)}  # fmt: skip
configure = configure_timing


def decoding(model: Codec, order: Order, x: Tensor) -> Callable[[], float]:
    """A task: the seconds of decoding an image's streams in an order; x (1, 3, H, W) is padded."""
    model.order = order
    streams = model.encode(model.analysis(x))

    def task() -> float:
        model.order = order
        started = clock(x.device)
        model.decode(streams, *x.shape[-2:])
        return clock(x.device) - started

    return task


def measure(
    models: dict[str, Codec], pixels: np.ndarray, orders: list[str], device: torch.device,
    rounds: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of orders.csv for one image (H, W, 3)."""
    height, width = pixels.shape[:2]
    megapixels = height * width / 1e6
    tasks, rows = {}, {}
    for name in orders:
        model, order = ORDERS[name]
        x = pad(to_tensor(pixels).to(device), models[model].downsampling)
        tasks[name] = decoding(models[model], order, x)
        rows[name] = {
            "order": name, "model": model, "megapixels": number(megapixels, 3), "height": height,
            "width": width, "steps": len(order(*(side // 16 for side in x.shape[-2:]))),
        }  # fmt: skip
    with Progress(f"{height}x{width}", (rounds + 1) * len(tasks), "decoding") as progress:
        for name, seconds in alternate(tasks, rounds, progress.step).items():
            rows[name] |= spread(seconds)
            rows[name]["seconds_per_megapixel"] = number(median(seconds) / megapixels)
    return list(rows.values())


@torch.no_grad()
def run(options: argparse.Namespace) -> int:
    """Measure size after size. CheckpointError or ImageError for what is missing."""
    device = choose_device(options.device)
    where = {"root": options.ckpt_dir, "device": device}
    models = {name: load(name, options.lmbda, **where) for name in (JOINT, CHECKERBOARD)}
    pixels = open_photographs(options.image)[0].read()
    rows: list[dict[str, Any]] = []
    smallest = min(options.sizes, key=math.prod)
    for sides in options.sizes:
        orders = [name for name in ORDERS if name != "raster" or sides == smallest]
        rows += measure(models, picture(pixels, *sides), orders, device, options.rounds)
        write_csv(options.outdir / "orders.csv", rows, options.device)
    print_table(rows)
    return 0
