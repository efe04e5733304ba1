"""One static page that compares reconstructions: `make gallery`.

    python -m benchmarks gallery --dataset_path photos      # one's own photographs

Codes photographs with every checkpoint there is and writes a page that needs no server: open
<outdir>/gallery/index.html. The reader flips between the original, the learned codecs and JPEG at
a matched rate, sees the bits of each 16x16 block, and where the point lies on the rate-distortion
curves.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.gallery.measure import measure
from evaluation.choice import choose_all
from evaluation.photographs import open_photographs
from evaluation.plots import LOOKS, style_of
from models import checkpoint
from models.cli import Progress, choose_device
from models.files import write_text
from models.presets import short

HERE = Path(__file__).parent


def page(photos: list[dict], names: list[str]) -> str:
    """The page as HTML, with its style, its script and all numbers inside.

    `names`: the learned codecs in their order. Images are referred to by relative paths.
    """
    codecs = [
        {"name": name, "title": short(name), "color": style_of(name)["color"],
         "marker": LOOKS.get(name, ("", "o"))[1]}
        for name in [*names, "JPEG"]
    ]  # fmt: skip
    lambdas = sorted({point["lmbda"] for photo in photos for point in photo["points"]})
    data = {"codecs": codecs, "lambdas": lambdas, "photos": photos}
    # A "<" could end the script element: the names of photographs may hold anything.
    inlined = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    html = (HERE / "page.html").read_text(encoding="utf-8")
    for kind in ("css", "js"):
        html = html.replace(f"{{{{{kind}}}}}", (HERE / f"page.{kind}").read_text("utf-8"), 1)
    return html.replace("{{data}}", inlined, 1)  # last: it may hold anything


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset_path", type=Path, metavar="PATH",
        help="folder of images, or one image (default: built-in photographs)")  # fmt: skip
    add("--ckpt_dir", type=Path, default=checkpoint.STUDY, metavar="DIR",
        help="folder of the checkpoints (default: %(default)s)")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda (default: a GPU if there is one)")


def run(options: argparse.Namespace) -> int:
    """Build the page. CheckpointError or ImageError when there is nothing to show."""
    chosen = choose_all(options.ckpt_dir, str(choose_device(options.device)))
    points = [point for own in chosen.values() for point in own]
    photographs = open_photographs(options.dataset_path)
    print(f"{len(photographs)} photograph(s), {len(points)} checkpoint(s) of {', '.join(chosen)}")
    out = options.outdir / "gallery"
    with Progress("gallery", len(photographs) * len(points), "image") as progress:
        photos = measure(photographs, points, out, progress.step)
    write_text(out / "index.html", page(photos, list(chosen)))
    print(f"Wrote {out / 'index.html'}; open it in a browser.")
    return 0
