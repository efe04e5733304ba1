"""What the timing benchmarks share: alternating rounds, workers, CompressAI's twins."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.reference import import_compressai
from models.base import Codec
from models.convert import to_compressai
from models.datasets import sample_photographs
from models.images import to_tensor
from models.presets import TWINS


def alternate(
    tasks: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each task, one figure a round: all tasks in turn, then all of them again.

    What disturbs the machine for a while then disturbs all tasks alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for step in range(warmup + rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
            if step >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median of the quotients of the rounds."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def photograph(height: int, width: int) -> Tensor:
    """The built-in coffee cup, resized, (1, 3, height, width) in [0, 1]."""
    pixels = to_tensor(dict(sample_photographs())["coffee"])
    return F.interpolate(pixels, (height, width), mode="bicubic", antialias=True).clamp_(0, 1)


def compressai_twin(model: Codec) -> torch.nn.Module:
    """CompressAI's model with the weights of ours and its tables made."""
    name = TWINS[type(model).__name__].compressai_class
    twin = getattr(import_compressai().models, name)(model.N, model.M).eval()
    twin.load_state_dict(to_compressai(model))
    twin.update(force=True)
    return twin.to(next(model.parameters()).device)


def run_worker(*arguments: object) -> dict:
    """The report of `benchmarks.worker`, run in a process of its own so that memory is its own.

    RuntimeError with the worker's last words if it fails.
    """
    command = [sys.executable, "-m", "benchmarks.worker", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])
