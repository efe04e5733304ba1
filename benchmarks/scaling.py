"""Time and peak memory of our codecs for images of 0.4, 2, 8 and 24 megapixels.

    python -m benchmarks.scaling [--models ...] [--sizes 512x768 ...]

Every compression and decompression runs in a process of its own, with the weights of the
study's wide models (N, M = 192, 320; random with the statistics of trained ones). The image
is a built-in photograph, enlarged twice and continued by mirror images. Cost per pixel should
be flat; memory must stay below `LIMIT_MB`.

Writes scaling.csv, where models and sizes that are not measured stay, and draws scaling.svg;
`--draw` only draws.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration import calibrated
from benchmarks.records import add_outdir, number, outdir, print_table, write_csv
from benchmarks.timing import photograph, run_worker
from evaluation.curves import read_rows
from evaluation.plots import IMAGES, drawing, style_of
from evaluation.results import STATISTICS
from models import MODELS, canonical_name, checkpoint
from models.images import to_uint8
from models.presets import short

SIZES = ((512, 768), (1152, 1728), (2304, 3456), (4000, 6000))  # rows, columns
LIMIT_MB = 4000


def large_photograph(height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3): the coffee cup at twice its size, mirrored as often as needed."""
    tile = to_uint8(photograph(800, 1200))
    pad = ((0, max(height - 800, 0)), (0, max(width - 1200, 0)), (0, 0))
    return np.pad(tile, pad, mode="symmetric")[:height, :width]


def measure(name: str, channels: tuple[int, int], sizes: list[tuple[int, int]]) -> list[dict]:
    """The rows of one model."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights, pixels, file = (Path(folder, n) for n in ("w.safetensors", "image.npy", "file"))
        model = calibrated(name, *channels, photograph(min(512, sizes[0][0]), 768))
        checkpoint.save(weights, model, config={}, provenance={})
        del model
        for height, width in sizes:
            np.save(pixels, large_photograph(height, width))
            megapixels = height * width / 1e6
            for direction in ("compress", "decompress"):
                found = run_worker("fp32", direction, weights, pixels, file)
                row = {"model": name, "N": channels[0], "M": channels[1], "direction": direction}
                row |= {"height": height, "width": width, "megapixels": number(megapixels, 3)}
                row["bpp"] = number(8 * found["bytes"] / (height * width), 3)
                row["seconds"] = number(found["seconds"], 3)
                row["seconds_per_megapixel"] = number(found["seconds"] / megapixels, 3)
                row["peak_mb"] = f"{found['peak_mb']:.0f}"
                measured = f"{row['seconds']} s, {row['peak_mb']} MB"
                print(f"{name} {direction} {height}x{width}: {measured}", flush=True)
                rows.append(row)
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """Seconds per megapixel and peak memory against megapixels on a logarithmic axis."""
    with drawing(path, (9, 3.6)) as figure:
        _panels(rows, figure.subplots(1, 3))


def _panels(rows: list[dict], panels: Any) -> None:
    titles = {"compress": "encoding", "decompress": "decoding", "memory": "memory, larger of both"}
    panels[2].axhline(LIMIT_MB, color="black", linewidth=0.8, linestyle=":")
    for axes, (direction, title) in zip(panels, titles.items(), strict=True):
        for model in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if row["model"] == model]
            if axes is not panels[2]:
                own = [row for row in own if row["direction"] == direction]
                points = [(float(r["megapixels"]), float(r["seconds_per_megapixel"])) for r in own]
            else:
                sizes = dict.fromkeys(r["megapixels"] for r in own)
                points = [
                    (float(s), max(float(r["peak_mb"]) for r in own if r["megapixels"] == s))
                    for s in sizes
                ]
            axes.plot(*zip(*points, strict=True), label=short(model), **style_of(model))
        axes.set(title=title, xlabel="megapixels", xscale="log")
        axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axes.minorticks_off()
        axes.set_ylabel("peak memory (MB)" if axes is panels[2] else "seconds per megapixel")
        axes.set_ylim(bottom=0)
    panels[0].legend(fontsize=8)


def size(text: str) -> tuple[int, int]:
    """The value of --sizes: "rows x columns", such as 512x768."""
    height, width = map(int, text.lower().split("x"))
    return height, width


def merged(path: Path, rows: list[dict]) -> list[dict]:
    """The rows of a CSV with those measured now in place of the former of model and size."""
    if not path.exists():
        return rows
    measured = {(r["model"], str(r["height"]), str(r["width"])) for r in rows}
    kept = [r for r in read_rows(path) if (r["model"], r["height"], r["width"]) not in measured]
    place = list(MODELS).index
    return sorted(kept + rows, key=lambda r: (place(r["model"]), int(r["height"])))


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", type=canonical_name, default=list(MODELS))
    parser.add_argument("--sizes", nargs="+", type=size, default=list(SIZES), metavar="HxW")
    add_outdir(parser)
    parser.add_argument("--figure", type=Path, help="default: Image4md/scaling.svg for the study's")
    parser.add_argument("--draw", action="store_true", help="draw the figure from the CSV")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of the program")
    options = parser.parse_args(arguments)
    path = outdir(parser, options, free=["models", "draw", "figure"]) / "scaling.csv"
    study = path.parent == STATISTICS
    figure = options.figure or (IMAGES if study else path.parent) / "scaling.svg"
    if options.draw:
        draw(merged(path, []), figure)
        return
    channels, sizes = ((8, 12), [(64, 128)]) if options.quick else ((192, 320), options.sizes)
    rows = [row for name in options.models for row in measure(name, channels, sizes)]
    print_table(rows)
    rows = merged(path, rows)
    write_csv(path, rows)
    draw(rows, figure)


if __name__ == "__main__":
    main()
