"""Test a codec on real files: `python test.py --model_name Hyperprior --dataset_path FOLDER`.

For every operating point each image is compressed to a file, which another process reads
back from the disk and decodes. Rate is the size of the file; PSNR and MS-SSIM are those of
the decoded 8-bit image. See `evaluation/bench.py` for what is measured.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import models
from evaluation.bench import evaluate, output_paths
from evaluation.curves import original_curve, reference_curve
from evaluation.photographs import Photograph, open_photographs
from evaluation.plots import Curve, contact_sheet, rd_figure, style_of
from evaluation.points import ImportedPoint, Point, TrainedPoint
from evaluation.results import Mean, Results, Row, compressai_json, means, table
from models import checkpoint
from models.drivers import Progress, choose_device, guarded
from models.errors import DataError, UsageError
from models.files import locked, write_text
from models.images import read_image
from models.presets import CATALOGUE, MAX_PIXELS, METRICS, zoo_point

STATISTICS = Path("statistics")
REFERENCE = Path(__file__).parent / STATISTICS
PREFIX = "compressai:"
KODAK = {f"kodim{k:02}" for k in range(1, 25)}
SHEET_IMAGES, SHEET_SIDE = 6, 384

DESCRIPTION = """\
Compress images to real files with each trained operating point of a model, decode the files
in another process, and report rate and distortion. Without --dataset_path it runs on the
photographs that come with scikit-image."""

EPILOG = """\
Results go to --resultdir as <Model>.csv (means over the images) and per_image/<Model>.csv.
Its default is 'statistics' with --dataset_path, and the --outdir without, so that a trial on
the built-in photographs leaves the study's results alone. Rows of lambdas that a run does not
test are kept. A run on other images than those of the stored rows is refused before it starts.

Exit codes: 0 done, 1 a failure that is explained in one line, 2 wrong usage, 130 Ctrl-C."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="test.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = made.add_argument_group("what to test")
    add = group.add_argument
    add("--model_name", default="Factorized",
        help="a model, or compressai:ARCH for one of CompressAI's image models, such as "
        "compressai:mbt2018 (default: %(default)s)")  # fmt: skip
    add("--epoch_num", "--load_model_epoch", dest="epoch_num", type=int, metavar="E",
        help="epoch of the checkpoints (default: the newest of each lambda)")  # fmt: skip
    add("--lmbda", type=float, nargs="+", help="only these lambdas (default: all there are)")
    add("--metric", choices=METRICS, default="mse",
        help="what the checkpoints were trained for (default: %(default)s)")  # fmt: skip
    add("--quality", type=int, nargs="+", metavar="Q",
        help="CompressAI's qualities in place of lambdas, 1 to 8")  # fmt: skip
    add("--checkpoint", type=Path, metavar="FILE",
        help="this checkpoint: one of train.py's; or, with --quality, one of CompressAI's, for "
        "compressai:ARCH and for our model of the same architecture")  # fmt: skip
    add("--ckpt_dir", type=Path, default=Path("ckpts"), metavar="DIR",
        help="holds <Model>/epoch_<E>_lmbda_<lambda>.safetensors (default: %(default)s)",
        )  # fmt: skip
    add("--import_module", action="append", default=[], metavar="MODULE",
        help="import first: one that registers your own model")  # fmt: skip

    group = made.add_argument_group("images and results")
    add = group.add_argument
    add("--dataset_path", type=Path, metavar="PATH",
        help="folder of images, or one image (default: built-in photographs)")  # fmt: skip
    add("--outdir", type=Path, metavar="DIR",
        help="for files, decoded images and figures (default: outputs/<Model>)")  # fmt: skip
    add("--resultdir", type=Path, metavar="DIR", help="for the CSVs (default: see below)")
    add("--max_pixels", type=int, default=MAX_PIXELS, metavar="N",
        help="refuse larger images, before they are decoded (default: %(default)s)")  # fmt: skip
    add("--json", nargs="?", type=Path, const=Path(), metavar="FILE",
        help="also write the results as CompressAI does (default FILE: <Model>.json beside the CSV)"
        )  # fmt: skip

    group = made.add_argument_group("machine")
    add = group.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: a GPU if there is one)")
    add("--entropy_device", metavar="DEVICE",
        help="no longer needed: entropy parameters are computed in integers, so files decode "
        "alike on every device; accepted and ignored")  # fmt: skip
    return made


# What is tested -----------------------------------------------------------------------------


def choose_points(flags: argparse.Namespace) -> tuple[str, Sequence[Point]]:
    """The name under which results are filed, and the operating points, lowest lambda first."""
    suffix = "" if flags.metric == "mse" else f"-{flags.metric}"
    _check_flags(flags)
    if flags.model_name.lower().startswith(PREFIX):
        from benchmarks import zoo  # CompressAI is a reference: most runs do without it

        arch = flags.model_name[len(PREFIX) :].lower()
        args = (arch, flags.quality, flags.metric, flags.checkpoint, flags.device)
        return f"compressai-{arch}{suffix}", zoo.points(*args)
    for module in flags.import_module:
        importlib.import_module(module)
    try:
        name = models.canonical_name(flags.model_name)
        lambdas = flags.lmbda
        if flags.quality:
            lambdas = [zoo_point(name, q, flags.metric).lmbda for q in flags.quality]
    except ValueError as error:
        raise UsageError(str(error)) from None
    if flags.checkpoint is None:
        return f"{name}{suffix}", _trained(flags, name, lambdas)
    return f"{name}{suffix}", [_from_checkpoint(flags, name)]


def _check_flags(flags: argparse.Namespace) -> None:
    """UsageError for flags that exclude each other, instead of ignoring one of them."""
    zoo = flags.model_name.lower().startswith(PREFIX)
    if flags.lmbda and flags.quality:
        raise UsageError("--quality already means a lambda: drop one of the two flags.")
    if zoo and (flags.lmbda or flags.epoch_num is not None):
        raise UsageError("CompressAI's models go by --quality, not by --lmbda or --epoch_num.")
    if flags.checkpoint and (flags.lmbda or flags.epoch_num is not None):
        raise UsageError("--checkpoint is one operating point: drop --lmbda and --epoch_num.")
    if flags.checkpoint and flags.quality and len(flags.quality) > 1:
        raise UsageError("One --checkpoint belongs to one --quality.")


def _trained(flags: argparse.Namespace, name: str, lambdas: list[float] | None) -> list[Point]:
    paths = {}
    for lmbda in lambdas or [None]:
        for path in checkpoint.find(name, flags.ckpt_dir, flags.epoch_num, lmbda):
            paths[path] = checkpoint.read_metadata(path)
    for path, metadata in paths.items():
        if metadata["model"] != name:
            raise UsageError(f"{path} holds a {metadata['model']}, not a {name}: move it away.")
    chosen = [
        _trained_point(flags, path, metadata)
        for path, metadata in paths.items()
        if metadata["metric"] == flags.metric
    ]
    if not chosen:
        trained = sorted({metadata["metric"] for metadata in paths.values()})
        raise UsageError(
            f"The checkpoints of {name} were trained for {', '.join(trained)}: "
            f"pass --metric {trained[0]}."
        )
    return sorted(chosen, key=lambda point: point.lmbda)


def _from_checkpoint(flags: argparse.Namespace, name: str) -> Point:
    path = flags.checkpoint
    if flags.quality:
        checkpoint.load_tensors(path)  # says now what is wrong with it
        args = (path, name, flags.quality[0], flags.metric, flags.device, flags.max_pixels)
        return ImportedPoint(*args)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is not one of ours; for CompressAI's weights add --quality.")
    metadata = checkpoint.read_metadata(path)
    if metadata["model"] != name:
        raise UsageError(f"{path} holds a {metadata['model']}: pass --model_name with that.")
    return _trained_point(flags, path, metadata)


def _trained_point(flags: argparse.Namespace, path: Path, metadata: dict) -> TrainedPoint:
    modules = tuple(flags.import_module)
    return TrainedPoint(path, metadata["lmbda"], flags.device, modules, flags.max_pixels)


# What is written ----------------------------------------------------------------------------


def point_folder(outdir: Path, lmbda: float) -> Path:
    """Files and decoded images of one operating point."""
    return outdir / f"lmbda_{lmbda:g}"


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep a point's folder to this process. UsageError if another one is testing into it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, wait=False))
        except BlockingIOError:
            raise UsageError(
                f"Another process is testing into {folder}: choose another --outdir."
            ) from None
        yield


def draw_curves(name: str, found: list[Mean], photographs: list[Photograph], outdir: Path) -> None:
    """rd_psnr.png and rd_ms_ssim.png; on the Kodak images with the published curves."""
    for metric in ("psnr", "ms_ssim"):
        ours = [getattr(m, metric) for m in found]
        style = style_of(name.removeprefix("compressai-"))
        curves: list[Curve] = [(f"{name} (measured)", [m.bpp for m in found], ours, style)]
        if {photograph.stem for photograph in photographs} == KODAK:
            curves += published_curves(name, metric)
        try:
            rd_figure(curves, metric, outdir / f"rd_{metric}.png", title=name)
        except ValueError:  # no point with a finite quality: images too small for MS-SSIM
            continue


def published_curves(name: str, metric: str) -> list[Curve]:
    """The original study's and CompressAI's curves of a model, where there are any."""
    curves: list[Curve] = []
    zoo = CATALOGUE[name].published if name in CATALOGUE else name.removeprefix("compressai-")
    for source, read, codec in (
        ("original", original_curve, name),
        ("zoo", reference_curve, zoo),
    ):
        try:
            curve = read(codec, REFERENCE)
        except DataError:
            continue
        points = zip(curve.bpp, getattr(curve, metric), strict=True)
        bpp, quality = zip(*points, strict=True)
        label = curve.name if source == "original" else f"{curve.name} (published)"
        curves.append((label, bpp, quality, style_of(codec, source)))
    return curves


def draw_sheet(rows: list[Row], photographs: list[Photograph], outdir: Path) -> None:
    """contact_sheet.png: the middle of some originals beside their reconstructions."""
    step = max(1, len(photographs) // SHEET_IMAGES)
    sheet = []
    for photograph in photographs[::step][:SHEET_IMAGES]:
        line = [(f"{photograph.stem}\noriginal", _middle(photograph.read()))]
        for row in (row for row in rows if row.image == photograph.name):
            _, image = output_paths(point_folder(outdir, row.lmbda), photograph)
            title = f"lambda {row.lmbda:g}\n{row.bpp:.3f} bpp, {row.psnr:.2f} dB"
            line.append((title, _middle(read_image(image, row.width * row.height))))
        sheet.append(line)
    contact_sheet(sheet, outdir / "contact_sheet.png")


def _middle(pixels):
    top, left = (max(0, (side - SHEET_SIDE) // 2) for side in pixels.shape[:2])
    return pixels[top : top + SHEET_SIDE, left : left + SHEET_SIDE]


def run(flags: argparse.Namespace) -> int:
    """The whole test; raises what `guarded` turns into a line."""
    flags.device = str(choose_device(flags.device))
    if flags.entropy_device is not None:
        print("--entropy_device is no longer needed and ignored: entropy parameters are integers.")
    name, points = choose_points(flags)
    photographs = open_photographs(flags.dataset_path, flags.max_pixels)
    outdir = flags.outdir or Path("outputs") / name
    resultdir = flags.resultdir or (STATISTICS if flags.dataset_path else outdir)
    results = Results(resultdir, name)
    results.check({(p.name, p.width, p.height) for p in photographs})
    where = flags.dataset_path or "built-in photographs"
    print(f"{name} on {len(photographs)} image(s) of {where}, device {flags.device}")

    new: list[Row] = []
    stored: list[Row] = []
    for point in points:
        print(f"lambda {point.lmbda:g}: {point.source}", flush=True)
        folder = point_folder(outdir, point.lmbda)
        label = f"lambda {point.lmbda:g}"
        with _held(folder), Progress(label, len(photographs), "image") as progress:
            rows = evaluate(point, photographs, folder, lambda _, p=progress: p.step())
        stored = results.merge(rows)  # now: what is measured stays, whatever comes next
        new += rows

    found = means(stored)
    tested = {f"{row.lmbda:g}" for row in new}
    print(f"\n{table([m for m in found if f'{m.lmbda:g}' in tested])}\n")
    draw_curves(name, found, photographs, outdir)
    draw_sheet(new, photographs, outdir)
    print(f"Wrote {results.summary}, {results.per_image}, and files and figures in {outdir}.")
    if flags.json is not None:
        path = flags.json if flags.json != Path() else resultdir / f"{name}.json"
        title = f"{name}-{flags.metric}" if flags.metric == "mse" else name
        write_text(path, compressai_json(title, "Inference (sizes of real files)", found) + "\n")
        print(f"Wrote {path}.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    flags = parser().parse_args(arguments)
    return guarded("test.py", lambda: run(flags))


if __name__ == "__main__":
    sys.exit(main())
