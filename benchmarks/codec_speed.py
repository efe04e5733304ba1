"""Encode and decode times of our codecs and of CompressAI's, same image, same weights.

    python -m benchmarks.codec_speed [--rounds 5] [--sizes 192,192 192,320] [--image FILE]

All codecs of one size (N, M) run in one process, in turn, round after round: ours in fp32 and,
where the device has instructions for it, with the transforms in bf16. The table gives the median
and the quartiles of each, the median of the rounds' ratios, each codec's time in units of our
Hyperprior's in the same precision, the peak memory of a process that does nothing else, and the
times that the original study printed. `encode` is image to bytes, `decode` bytes to image.
Checkerboard has no counterpart in CompressAI. Weights are random with the statistics of
trained ones (`benchmarks.calibration`), the same in both libraries.

Writes codec_speed.csv, codec_stages.csv (where our time goes) and machine.json.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.calibration import calibrated
from benchmarks.records import add_outdir, number, outdir, print_table, write_csv
from benchmarks.timing import alternate, compressai_twin, photograph, ratio, run_worker, spread
from evaluation.curves import read_rows
from evaluation.results import STATISTICS
from models import MODELS, canonical_name, checkpoint
from models.base import Codec, pad
from models.cli import choose_device
from models.images import read_image, to_tensor, to_uint8
from models.layers.bf16 import PRECISIONS, computes_in_bf16
from models.presets import TWINS, points

DIRECTIONS = {"encode": "compress", "decode": "decompress"}
STAGES = ("g_a", "h_a", "h_s", "g_s")


def tasks_of(
    model: Codec, twin: torch.nn.Module | None, x: Tensor, precisions: Sequence[str]
) -> dict[str, Callable]:
    """What is timed, by "<codec> <direction>", where our codec's name is its precision.

    x (1, 3, H, W), multiples of 64.
    """
    files = model.compress(x)
    tasks: dict[str, Callable] = {}
    for p in precisions:
        tasks[f"{p} encode"] = lambda p=p: model.use(p).compress(x)
        tasks[f"{p} decode"] = lambda p=p: model.use(p).decompress(files)
    if twin is not None:
        coded = twin.compress(x)
        tasks["compressai encode"] = lambda: twin.compress(x)
        tasks["compressai decode"] = lambda: twin.decompress(**coded)
    return tasks


def stage_seconds(model: Codec, x: Tensor, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each stage of ours: direction -> stage -> seconds.

    `entropy` is all that is not a network: tables, context, quantisation, the range coder.
    """
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable) -> Callable:
        def run(*arguments):
            started = time.perf_counter()
            result = work(*arguments)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - started
            return result

        return run

    names = [name for name in ("g_a", "h_a", "g_s") if hasattr(model, name)]
    patched = [getattr(model, n) if n == "h_a" else model.transform(n) for n in names]
    networks = model.frozen.networks
    integer = networks.get("h_s")
    try:
        for name, module in zip(names, patched, strict=True):
            module.forward = timed(name, module.forward)
        if integer is not None:
            networks["h_s"] = timed("h_s", integer)
        files = model.compress(x)
        work = {"encode": lambda: model.compress(x), "decode": lambda: model.decompress(files)}
        found: dict[str, list[dict[str, float]]] = {direction: [] for direction in work}
        for _ in range(rounds):
            for direction, run in work.items():
                spent.clear()
                timed("all", run)()
                known = sum(spent.get(name, 0.0) for name in STAGES)
                found[direction].append({**spent, "entropy": spent["all"] - known})
    finally:
        for module in patched:
            del module.forward
        if integer is not None:
            networks["h_s"] = integer
    return {
        direction: {name: statistics.median(r[name] for r in runs) for name in runs[0]}
        for direction, runs in found.items()
    }


def original_seconds(model: str, N: int, M: int, folder: Path) -> dict[str, str]:
    """The original study's mean seconds at the operating points of this size, "" if none."""
    lambdas = [p.lmbda for p in points(model) if (p.N, p.M) == (N, M)]
    path = folder / "reference" / "seminar_2022_results.csv"
    found = read_rows(path) if lambdas and path.is_file() else []
    rows = [r for r in found if r["model"] == model and float(r["lmbda"]) in lambdas]
    if not rows:
        return dict.fromkeys(DIRECTIONS, "")
    return {d: number(statistics.mean(float(r[f"{d}_s"]) for r in rows)) for d in DIRECTIONS}


def peak_memory(model: Codec, x: Tensor, precisions: Sequence[str]) -> dict[str, float]:
    """Peak MB by "<codec> <direction>", each measured in a process of its own, on the CPU."""
    found = {}
    codecs = [*precisions, *(["compressai"] if type(model).__name__ in TWINS else [])]
    with tempfile.TemporaryDirectory() as folder:
        weights, image = Path(folder, "weights.safetensors"), Path(folder, "image.npy")
        checkpoint.save(weights, model, config={}, provenance={})
        np.save(image, to_uint8(x))
        for codec in codecs:
            for direction, command in DIRECTIONS.items():
                report = run_worker(codec, command, weights, image, Path(folder, codec))
                found[f"{codec} {direction}"] = report["peak_mb"]
    return found


def measure_size(
    names: list[str],
    N: int,
    M: int,
    x: Tensor,
    rounds: int,
    memory: bool,
    device: str,
    precisions: Sequence[str],
) -> tuple[list[dict], list[dict]]:
    """The rows of both tables for all models of one size."""
    built = {name: calibrated(name, N, M, x.cpu()).to(device) for name in names}
    tasks, bits = {}, {}
    for name, model in built.items():
        twin = compressai_twin(model) if name in TWINS else None
        for task, work in tasks_of(model, twin, x, precisions).items():
            tasks[f"{name} {task}"] = work
        bits[name] = 8 * len(model.compress(x)[0]) / x[0, 0].numel()
    with torch.no_grad():
        seconds = alternate(tasks, rounds, device=device)
    rows, stages = [], []
    for name, model in built.items():
        peaks = peak_memory(model.use("fp32"), x.cpu(), precisions) if memory else {}
        original = original_seconds(name, N, M, STATISTICS)
        for precision, direction in itertools.product(precisions, DIRECTIONS):
            what = {"model": name, "N": N, "M": M, "device": device}
            what |= {"precision": precision, "direction": direction}
            row = what | {"bpp": number(bits[name], 3)}
            row |= timings(seconds, name, precision, direction)
            for column, codec in (("ours", precision), ("compressai", "compressai")):
                peak = peaks.get(f"{codec} {direction}")
                row[f"{column}_peak_mb"] = f"{peak:.0f}" if peak else ""
            rows.append(row | {"original_s": original[direction]})
            found = stage_seconds(model.use(precision), x, rounds)[direction]
            row = {f"{s}_s": number(found[s]) if s in found else "" for s in (*STAGES, "entropy")}
            stages.append(what | row | {"all_s": number(found["all"])})
    return rows, stages


def timings(
    seconds: dict[str, list[float]], name: str, precision: str, direction: str
) -> dict[str, str]:
    """The columns of a row that come from the rounds."""
    row = {}
    ours = seconds[f"{name} {precision} {direction}"]
    theirs = seconds.get(f"{name} compressai {direction}")
    hyperprior = seconds.get(f"Hyperprior {precision} {direction}")
    for codec, values in (("ours", ours), ("compressai", theirs)):
        cells = [number(v) for v in spread(values)] if values else ["", "", ""]
        row[f"{codec}_s"] = cells[0]
        row[f"{codec}_quartiles"] = " to ".join(cells[1:]) if values else ""
    row["compressai_over_ours"] = number(ratio(theirs, ours), 3) if theirs else ""
    row["over_our_hyperprior"] = number(ratio(ours, hyperprior), 3) if hyperprior else ""
    return row


def size(text: str) -> tuple[int, int]:
    """The value of --sizes: "N,M"."""
    N, M = map(int, text.split(","))
    return N, M


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.codec_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", type=canonical_name, default=list(MODELS))
    parser.add_argument(
        "--sizes", nargs="+", type=size, metavar="N,M", default=[(128, 192), (192, 192), (192, 320)]
    )
    parser.add_argument("--image", type=Path, help="default: a built-in photograph, 768x512")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add_outdir(parser)
    parser.add_argument(
        "--no-memory",
        dest="memory",
        action="store_false",
        help="leave out the processes that measure memory",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of the program")
    options = parser.parse_args(arguments)
    folder = outdir(parser, options, free=["rounds"])
    device = str(choose_device(options.device))
    if options.quick:
        options.rounds, options.sizes = 1, [(8, 12)]
    x = photograph(64, 128) if options.quick else photograph(512, 768)
    if options.image:
        x = pad(to_tensor(read_image(options.image)), 64)
    rows, stages = [], []
    half = computes_in_bf16(torch.device(device))
    how = (options.rounds, options.memory, device, PRECISIONS if half else PRECISIONS[:1])
    for N, M in options.sizes:
        found = measure_size(options.models, N, M, x.to(device), *how)
        rows += found[0]
        stages += found[1]
    print_table(rows)
    print()
    print_table(stages)
    write_csv(folder / "codec_speed.csv", rows, device)
    write_csv(folder / "codec_stages.csv", stages, device)


if __name__ == "__main__":
    main()
