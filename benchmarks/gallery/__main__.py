"""Build the gallery: `python -m benchmarks.gallery [--dataset_path DIR] [--out DIR]`.

Codes photographs with every checkpoint there is and writes one static page, which needs no
server: open <out>/index.html. The reader flips between the original, the learned codecs and
JPEG at a matched rate, sees the bits of each 16x16 block, and where the point lies on the
rate-distortion curves.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.gallery.measure import checkpoints, measure
from evaluation.photographs import open_photographs
from evaluation.plots import LOOKS, style_of
from models import checkpoint
from models.cli import Progress, choose_device, guarded
from models.files import write_text
from models.presets import short

HERE = Path(__file__).parent


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--dataset_path", type=Path, metavar="PATH",
        help="folder of images, or one image (default: built-in photographs)")  # fmt: skip
    add("--out", type=Path, default=Path("outputs/gallery"), metavar="DIR",
        help="folder of the page (default: %(default)s)")  # fmt: skip
    add("--ckpt_dir", type=Path, default=checkpoint.STUDY, metavar="DIR",
        help="folder of the checkpoints (default: %(default)s)")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda (default: a GPU if there is one)")
    return made


def page(photos: list[dict], names: list[str]) -> str:
    """The page as HTML, with its style, its script and all numbers inside.

    `names`: the learned codecs in their order. Images are referred to by relative paths.
    """
    codecs = []
    for name in [*names, "JPEG"]:
        style = style_of(name)
        codecs.append({"name": name, "title": short(name), "color": style["color"],
                       "marker": LOOKS.get(name, ("", "o"))[1]})  # fmt: skip
    lambdas = sorted({point["lmbda"] for photo in photos for point in photo["points"]})
    data = {"codecs": codecs, "lambdas": lambdas, "photos": photos}
    # A "<" could end the script element: the names of photographs may hold anything.
    inlined = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    html = (HERE / "page.html").read_text(encoding="utf-8")
    parts = {
        "{{style}}": (HERE / "page.css").read_text(encoding="utf-8"),
        "{{script}}": (HERE / "page.js").read_text(encoding="utf-8"),
        "{{data}}": inlined,  # last: it may hold anything
    }
    for mark, text in parts.items():
        html = html.replace(mark, text, 1)
    return html


def run(flags: argparse.Namespace) -> int:
    """Build the page; raises what `guarded` turns into a line."""
    device = str(choose_device(flags.device))
    found = checkpoints(flags.ckpt_dir)
    photographs = open_photographs(flags.dataset_path)
    count = sum(map(len, found.values()))
    print(f"{len(photographs)} photograph(s), {count} checkpoint(s) of {', '.join(found)}")
    with Progress("gallery", len(photographs) * count, "image") as progress:
        photos = measure(photographs, found, flags.out, device, progress.step)
    index = flags.out / "index.html"
    write_text(index, page(photos, list(found)))
    print(f"Wrote {index}; open it in a browser.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    flags = parser().parse_args(arguments)
    return guarded("gallery", lambda: run(flags))


if __name__ == "__main__":
    sys.exit(main())
