"""One compression or decompression in a process of its own: its time and its peak memory.

    python -m benchmarks.worker fp32|bf16|compressai compress|decompress CHECKPOINT IMAGE.npy FILE

IMAGE.npy is a uint8 array (H, W, 3). `compress` writes FILE, `decompress` reads it. The
codec is CompressAI's or ours in a precision of the transforms. Prints a
line of JSON: seconds, peak_mb, base_mb (before the image is touched), bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import compressai_twin
from models import checkpoint
from models.images import to_tensor, to_uint8
from models.layers.bf16 import PRECISIONS


def peak_mb() -> float:
    """The most memory that this process has had, in 10**6 bytes.

    From the kernel's per-process counter where there is one: `getrusage` of a started process
    also counts what its parent had.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


@torch.no_grad()
def ours(model, direction: str, image: Path, file: Path) -> None:
    """Compress `image` to `file`, or decompress `file` to pixels."""
    if direction == "compress":
        file.write_bytes(model.compress(to_tensor(np.load(image)))[0])
    else:
        to_uint8(model.decompress([file.read_bytes()]))


@torch.no_grad()
def theirs(model, direction: str, image: Path, file: Path) -> None:
    """The same with CompressAI's model; its strings and shape are what is stored."""
    if direction == "compress":
        torch.save(model.compress(to_tensor(np.load(image))), file)
    else:
        to_uint8(model.decompress(**torch.load(file))["x_hat"])


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("codec", choices=(*PRECISIONS, "compressai"))
    parser.add_argument("direction", choices=("compress", "decompress"))
    for name in ("checkpoint", "image", "file"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args(arguments)
    model = checkpoint.load(options.checkpoint)
    work = ours
    if options.codec == "compressai":
        model, work = compressai_twin(model), theirs
    else:
        model.use(options.codec)
    base = peak_mb()
    started = time.perf_counter()
    work(model, options.direction, options.image, options.file)
    seconds = time.perf_counter() - started
    size = options.file.stat().st_size
    peak = max(base, peak_mb())  # the kernel's counter is a few pages inexact, either way
    report = {"seconds": seconds, "peak_mb": peak, "base_mb": base, "bytes": size}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
