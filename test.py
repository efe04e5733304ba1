"""Test a codec on real files: `python test.py --model_name Hyperprior --dataset_path FOLDER`.

For every operating point of a model, or of all models, each image is compressed to a file, which
another process reads back from the disk and decodes. Rate is the size of the file; PSNR and MS-SSIM
are those of the decoded 8-bit image. See `evaluation/bench.py` for what is measured.
"""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback

import argparse
from pathlib import Path

from evaluation.bench import measure_points
from evaluation.choice import choose
from evaluation.figures import draw
from evaluation.photographs import dataset_name, is_kodak, open_photographs
from evaluation.results import OUTPUTS, STATISTICS, Results, compressai_json, means, table
from models import checkpoint
from models.cli import choose_device, guarded, module_name, number
from models.errors import UsageError
from models.files import printable, write_text
from models.layers.bf16 import PRECISIONS
from models.presets import MAX_PIXELS, METRICS, short

DESCRIPTION = """\
Compress images to real files with each trained operating point of a model, decode the files
in another process, and report rate and distortion. Without --dataset_path it runs on the
photographs that come with scikit-image."""

EPILOG = """\
Results go to --resultdir as <Model>.csv (means over the images) and per_image/<Model>.csv. Rows of
lambdas that a run does not test are kept. A run on other images than those of the stored rows is
refused before it starts. An image that cannot be read is left out, named, and makes exit code 1.

Exit codes: 0 done, 1 a failure that is explained in one line, 2 wrong usage, 130 Ctrl-C."""


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="test.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("what to test")
    add = group.add_argument
    add("--model_name", default="Hyperprior",
        help="a model; all for every one that has checkpoints; compressai:ARCH for one of "
        "CompressAI's image models, such as compressai:mbt2018 (default: %(default)s)")  # fmt: skip
    add("--epoch_num", "--load_model_epoch", dest="epoch_num", type=int, metavar="E",
        help="epoch of the checkpoints (default: the last of each lambda)")  # fmt: skip
    add("--lmbda", type=float, nargs="+", default=[],
        help="only these lambdas; one between checkpoints is had from the nearest by a gain "
        "(default: all there are)")  # fmt: skip
    add("--metric", choices=METRICS, default="mse",
        help="what the checkpoints were trained for (default: %(default)s)")  # fmt: skip
    add("--quality", type=int, nargs="+", default=[], metavar="Q",
        help="CompressAI's qualities in place of lambdas, 1 to 8")  # fmt: skip
    add("--checkpoint", type=Path, metavar="FILE",
        help="this checkpoint: one of train.py's; or, with --quality, one of CompressAI's, for "
        "compressai:ARCH and for our model of the same architecture")  # fmt: skip
    add("--ckpt_dir", type=Path, default=checkpoint.STUDY, metavar="DIR",
        help="holds <Model>/epoch_<E>_lmbda_<lambda>.safetensors (default: %(default)s)",
        )  # fmt: skip
    add("--import_module", action="append", type=module_name, default=[], metavar="MODULE",
        help="import first: one that registers your own model")  # fmt: skip
    add("--effort", type=number(int, 0), default=0, metavar="N",
        help="steps of the encoder's search for smaller files; results are filed under "
        "<Model>-searched<N> (default: %(default)s)")  # fmt: skip

    group = parser.add_argument_group("images and results")
    add = group.add_argument
    add("--dataset_path", type=Path, metavar="PATH",
        help="folder of images, with those inside it, or one image (default: built-in "
        "photographs)")  # fmt: skip
    add("--outdir", type=Path, metavar="DIR",
        help="for files, decoded images and figures, of all models a folder each (default: "
        "outputs/<Model> or outputs/all, with --dataset_path a folder of its name inside)",
        )  # fmt: skip
    add("--resultdir", type=Path, metavar="DIR", help="for the CSVs (default: the --outdir)")
    add("--record", action="store_true",
        help="results go to statistics/, for the study's checkpoints, or CompressAI's, on the 24 "
        "Kodak images")  # fmt: skip
    add("--max_pixels", type=int, default=MAX_PIXELS, metavar="N",
        help="refuse larger images, before they are decoded (default: %(default)s)")  # fmt: skip
    add(
        "--json",
        action="store_true",
        help="also write the results as CompressAI does, to <Model>.json beside the CSV",
    )

    group = parser.add_argument_group("machine")
    add = group.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: a GPU if there is one)")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="of the transforms: bf16 takes half the time where the device computes in it; results "
        "are filed under <Model>-bf16 (default: %(default)s)")  # fmt: skip
    add("--entropy_device", metavar="DEVICE",
        help="no longer needed: entropy parameters are computed in integers, so files decode "
        "alike on every device; accepted and ignored")  # fmt: skip
    return parser


def run(flags: argparse.Namespace) -> int:
    """The whole test; raises what `guarded` turns into a line."""
    flags.device = str(choose_device(flags.device))
    if flags.entropy_device is not None:
        print("--entropy_device is no longer needed and ignored: entropy parameters are integers.")
    choices, together = choose(flags), flags.model_name == "all"
    unreadable: list[str] = []
    photographs = open_photographs(flags.dataset_path, flags.max_pixels, unreadable)
    dataset = dataset_name(flags.dataset_path)
    title = "all" if together else choices[0].name
    outdir = flags.outdir or OUTPUTS / title / (dataset if flags.dataset_path else "")
    if flags.record and flags.resultdir:
        raise UsageError("--record means the folder statistics: drop it or --resultdir.")
    if flags.record and not (all(choice.study for choice in choices) and is_kodak(photographs)):
        raise UsageError(
            "--record is for the study's checkpoints on the 24 Kodak images (`make kodak`, then "
            "--dataset_path data/kodak): drop it."
        )
    resultdir = STATISTICS if flags.record else flags.resultdir or outdir
    stores = [Results(resultdir, choice.name) for choice in choices]
    for results in stores:
        results.check({(p.name, p.width, p.height) for p in photographs})
    count = f"{len(photographs)} image(s)" + f", without {len(unreadable)}" * bool(unreadable)
    print(f"{title} on {count} of {dataset}, device {flags.device}")

    tested = []
    for choice, results in zip(choices, stores, strict=True):
        folder = outdir / choice.name if together else outdir
        tested.append((results, measure_points(choice.points, photographs, folder, results)))
    shown = [(short(results.name), mean) for results, rows in tested for mean in means(rows)]
    print(f"\n{table(shown)}\n")
    draw(tested, photographs, outdir)
    for results in stores:
        print(f"Wrote {printable(results.summary)} and {printable(results.per_image)}.")
        if flags.json:
            name = f"{results.name}-mse" if flags.metric == "mse" else results.name
            points, about = means(results.rows()), "Inference (sizes of real files)"
            text = compressai_json(name, about, points) + "\n"
            write_text(results.summary.with_suffix(".json"), text)
    print(f"Files, decoded images, curves and a contact sheet are in {printable(outdir)}.")
    for problem in unreadable:
        print(f"test.py: left out: {printable(problem)}", file=sys.stderr)
    return 1 if unreadable else 0


def main(words: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    flags = arguments().parse_args(words)
    return guarded("test.py", lambda: run(flags))


if __name__ == "__main__":
    sys.exit(main())
