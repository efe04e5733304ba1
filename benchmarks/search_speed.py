"""What the encoder's search costs: seconds of a step, of each codec at both widths.

    python -m benchmarks.search_speed [--rounds 3] [--steps 6]      # an otherwise idle machine

The built-in photograph at 768x512, random weights with the statistics of trained ones
(`benchmarks.calibration`). An image takes `others_s` + N * `step_s` at effort N: the others are
g_a, and coding and decoding both files, the plain and the searched one. `plain_s` is effort 0. The
codecs take turns, round after round; medians.

Writes search_speed.csv, which `benchmarks.search` reads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import pairwise

from torch import Tensor

from benchmarks.calibration import calibrated
from benchmarks.records import add_outdir, number, outdir, print_table, write_csv
from benchmarks.timing import photograph
from models.base import Codec
from models.presets import CHANNELS, STUDIED, points
from models.search import compress


def seconds_of(model: Codec, x: Tensor, steps: int) -> dict[str, float]:
    """One run at effort 0 and one of so many steps, at least 2, on an image x (1, 3, H, W)."""
    started = time.perf_counter()
    compress(model, x)
    plain = time.perf_counter() - started
    stamps: list[float] = []
    started = time.perf_counter()
    compress(model, x, steps, watch=lambda _: stamps.append(time.perf_counter()))
    whole = time.perf_counter() - started
    step = statistics.median(b - a for a, b in pairwise(stamps))
    return {"plain_s": plain, "others_s": whole - steps * step, "step_s": step}


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="at least 2 (default: %(default)s)")
    add_outdir(parser)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of the program")
    options = parser.parse_args(arguments)
    folder = outdir(parser, options, free=["rounds", "steps"])
    if options.quick:
        options.rounds, options.steps = 1, 2
    x = photograph(64, 128) if options.quick else photograph(512, 768)
    built = {}
    for name in STUDIED:
        for rate, width in CHANNELS[name].items():
            N, M = (8, 12) if options.quick else width
            built[name, rate] = model = calibrated(name, N, M, x)
            model.point = points(name, rate)[0]
    found: dict[tuple[str, str], list[dict[str, float]]] = {key: [] for key in built}
    for turn in range(options.rounds + 1):
        for key, model in built.items():
            seconds = seconds_of(model, x, options.steps)
            if turn:  # the first warms up
                found[key].append(seconds)
    rows = [
        {"model": key[0], "N": built[key].N, "M": built[key].M}
        | {name: number(statistics.median(one[name] for one in runs)) for name in runs[0]}
        for key, runs in found.items()
    ]
    print_table(rows)
    write_csv(folder / "search_speed.csv", rows)


if __name__ == "__main__":
    main()
