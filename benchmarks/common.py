"""What the timing benchmarks share: the machine in words, alternating rounds, tables, CSVs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Codec
from models.drivers import processor
from models.files import csv_text, write_text
from models.images import sample_photographs, to_tensor
from models.presets import TWINS

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def cpu_flags() -> list[str]:
    """Which of `FLAGS` the processor has; empty where they cannot be told (not Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    line = next((li for li in text.splitlines() if li.startswith(("flags", "Features"))), "")
    return [flag for flag in FLAGS if flag in line.split()]


def machine(device: str = "cpu") -> str:
    """The machine and the libraries that decide about speed, in one line."""
    cores, threads = f"{os.cpu_count()} cores", f"{torch.get_num_threads()} threads"
    parts = [processor(), cores, threads, *cpu_flags()]
    if device.startswith("cuda"):
        parts.append(torch.cuda.get_device_name(device))
    parts.append(f"torch {torch.__version__}")
    for package in ("compressai", "constriction"):
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "; ".join(parts)


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
    from evaluation.reference import import_compressai
    from models.interchange import to_compressai

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


def number(value: float, digits: int = 4) -> str:
    """Significant digits without exponent, for CSVs."""
    return format(float(f"{value:.{digits}g}"), "f").rstrip("0").rstrip(".")


def write_csv(path: str | Path, rows: Sequence[Mapping], device: str = "cpu") -> None:
    """Rows to a CSV file, atomically; the columns are those of the first row.

    The machine goes into machine.json beside it, under the file's name.
    """
    path = Path(path)
    write_text(path, csv_text(rows, rows[0]))
    record = path.with_name("machine.json")
    machines = json.loads(record.read_text()) if record.is_file() else {}
    machines[path.name] = machine(device)
    write_text(record, json.dumps(machines, indent=2, sort_keys=True) + "\n")


def print_table(rows: Sequence[Mapping]) -> None:
    """Rows as an aligned table on standard output."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
