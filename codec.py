"""Compress one's own photographs with the trained codecs, and look into the files.

    python codec.py compress photo.png photo.lic
    python codec.py info photo.lic
    python codec.py decompress photo.lic decoded.png
    python codec.py compress photo.png photo.lic --bpp 0.42
    python codec.py compress photo.png photo.lic --psnr 35 --effort 200
    python codec.py compress photos more/photo.jpg -o compressed
    python codec.py decompress compressed -o decoded

A file holds the pixels alone: 8 bits per sample, upright, converted to sRGB; no EXIF data. It names
the checkpoint that decodes it: one of the study's, in ckpts/ beside this program, unless a flag
says otherwise.
"""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback

import argparse
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import models
from models import batch, checkpoint, rates
from models.base import Codec
from models.cli import Progress, choose_device, colour, guarded, module_name, note, number
from models.coding.container import read_file, read_header, scan_file
from models.datasets import SUFFIXES
from models.errors import UsageError
from models.files import check_target, printable
from models.images import WRITABLE, encoded, read_image, to_tensor, to_uint8
from models.layers.bf16 import PRECISIONS, check_precision
from models.presets import MAX_PIXELS

NAME = "lic" if Path(sys.argv[0]).name == "lic" else "codec.py"  # as it was called
USAGE = "%(prog)s IN OUT [--FLAG ...]\n       %(prog)s FILE [FILE ...] -o DIR [--FLAG ...]"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog=NAME,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("compress", help="images to compressed files", usage=USAGE)
    add = command.add_argument
    add("files", type=Path, nargs="+", metavar="FILE",
        help="IN: PNG, JPEG, WebP, TIFF, ..., and OUT: the compressed file, by custom *.lic; - is "
        "a pipe; with -o any images and folders of them")  # fmt: skip
    add("--model_name", help="a model (default: Hyperprior, or that of --checkpoint)")
    add("--epoch_num", type=int, metavar="E", help="epoch of the checkpoint (default: the newest)")
    add("--effort", type=number(int, 0), default=0, metavar="N",
        help="steps of a search for a smaller file")  # fmt: skip
    aim = command.add_mutually_exclusive_group().add_argument
    aim("--lmbda", type=float, help="trade-off, trained or not (default: the largest trained)")
    aim("--bpp", type=float, metavar="X", help="at most so many bits per pixel, and nearly as many")
    aim("--bytes", type=int, metavar="N", help="the same in bytes of the file")
    aim("--psnr", type=float, metavar="X", help="the smallest file of at least so many dB")
    add("--background", type=colour, metavar="COLOUR",
        help="of transparent pictures: white, #888, ... (default: they are refused)")  # fmt: skip
    _shared(command)

    command = commands.add_parser("decompress", help="compressed files to images", usage=USAGE)
    add = command.add_argument
    add("files", type=Path, nargs="+", metavar="FILE",
        help=f"IN: the compressed file, and OUT: the image, {', '.join(WRITABLE)}; - is a pipe; "
        "with -o any compressed files and folders of *.lic")  # fmt: skip
    add("--suffix", choices=WRITABLE, default=".png", help="of images in DIR and in a pipe")
    _shared(command)

    command = commands.add_parser("info", help="what a compressed file says about itself")
    command.add_argument("input", type=Path, metavar="FILE", help="the compressed file")
    command.add_argument("--json", action="store_true", help="for programs")
    return result


def _shared(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("-o", "--outdir", type=Path, metavar="DIR",
        help="write a file here for each FILE; those that exist are left out")  # fmt: skip
    add("--overwrite", action="store_true", help="write over files that exist")
    add("--csv", type=Path, metavar="FILE", help="write the sizes of what is in DIR to this CSV")
    add("--checkpoint", type=Path, metavar="FILE", help="use this one of train.py's checkpoints")
    add("--ckpt_dir", type=Path, default=checkpoint.STUDY, metavar="DIR",
        help="where to look for checkpoints (default: %(default)s)")  # fmt: skip
    add("--max_pixels", type=int, default=MAX_PIXELS, metavar="N",
        help="refuse images of more pixels with padding (default: %(default)s)")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda (default: a GPU if there is one)")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="of the transforms: bf16 takes half the time where the device has it")  # fmt: skip
    add("--import_module", action="append", type=module_name, default=[], metavar="MODULE",
        help="import first: one that registers your own model")  # fmt: skip


def compress(flags: argparse.Namespace) -> int:
    """Images to compressed files."""
    _choose_device(flags)
    pairs = _pairs(flags, ".lic", SUFFIXES)
    _goal(flags, 1)  # refused before any file, as the lambda
    trained = _trained(flags)
    load = lru_cache(4)(lambda lmbda: _load(flags, trained[lmbda]["file"]))
    flags.lmbda = max(trained) if flags.lmbda is None else flags.lmbda
    rates.at_lambda(list(trained), flags.lmbda)

    def work(source: Path, target: Path) -> str:
        pixels = read_image(source, flags.max_pixels, background=flags.background, notice=note)
        count = pixels.shape[0] * pixels.shape[1]
        goal, x = _goal(flags, count), to_tensor(pixels).to(flags.device)
        try:
            model, data = rates.fit(load, list(trained), x, goal, flags.effort)
        except ValueError as error:
            raise UsageError(f"{source} cannot be compressed: {error}") from error
        batch.write(target, data)
        if source.is_file() and len(data) > source.stat().st_size:
            note(f"{target} is larger than {source}, which has {source.stat().st_size} bytes.")
        size = f"{len(data)} bytes, {8 * len(data) / count:.4f} bits per pixel"
        header = read_header(data)
        point = f"{header.lmbda:g}"
        if header.gain != 1:
            point = f"{header.lmbda * header.gain**2:.3g} by a gain of {header.gain:.4f}"
        return f"{size}, {header.model}, lambda {point}; checkpoint {model.metadata['file']}"

    return _run(flags, pairs, work)


def decompress(flags: argparse.Namespace) -> int:
    """Compressed files to images."""
    _choose_device(flags)
    pairs = _pairs(flags, flags.suffix, (".lic",))
    _import(flags)
    load = lru_cache(4)(partial(_load, flags))

    def work(source: Path, target: Path) -> str:
        data, header = read_file(source, flags.max_pixels)
        model = load(flags.checkpoint or checkpoint.for_file(header, flags.ckpt_dir))
        pixels = to_uint8(model.decompress([data], max_pixels=flags.max_pixels))
        name = Path(f"-{flags.suffix}") if target == batch.PIPE else target
        batch.write(target, encoded(name, pixels))
        return f"{header.width}x{header.height} pixels; checkpoint {model.metadata['file']}"

    return _run(flags, pairs, work)


def info(flags: argparse.Namespace) -> int:
    """Print the header's fields and where the bytes go."""
    header, size = scan_file(flags.input)
    known = models.MODELS.get(header.model)
    names = known.streams if known and len(known.streams) == len(header.lengths) else None
    names = names or tuple(f"stream {k}" for k in range(1, len(header.lengths) + 1))
    keys = ("model", "lmbda", "metric", "gain", "digest", "width", "height")
    fields = {
        "file": str(flags.input),
        **{key: getattr(header, key) for key in keys},
        "bytes": size,
        "header_bytes": size - sum(header.lengths),
        "stream_bytes": dict(zip(names, header.lengths, strict=True)),
        "bpp": 8 * size / (header.width * header.height),
    }
    if flags.json:
        print(json.dumps(fields, indent=2))
        return 0
    fields["stream_bytes"] = ", ".join(f"{k} {v}" for k, v in fields["stream_bytes"].items())
    for name, value in fields.items():
        text = f"{value:.6g}" if isinstance(value, float) else printable(value)
        print(f"{name:<14}{text}")
    return 0


# Files and checkpoints ----------------------------------------------------------------------


def _pairs(flags: argparse.Namespace, suffix: str, wanted: Sequence[str]) -> list[batch.Pair]:
    """What to read and what to write. UsageError for what must not be written."""
    if flags.csv:
        if flags.outdir is None:
            raise UsageError("--csv is for the files of a folder: -o DIR.")
        check_target(flags.csv, flags.csv.parent, flags.overwrite)
    if flags.outdir is not None:
        return batch.pairs(flags.files, flags.outdir, suffix, wanted)
    source, target = batch.single(flags.files, flags.overwrite)
    ends = target.suffix.lower()
    if flags.command == "compress" and ends in SUFFIXES:
        raise UsageError(f"{target} is the name of a picture; with several to read: -o DIR.")
    if flags.command == "decompress" and ends not in WRITABLE and target != batch.PIPE:
        raise UsageError(f"{target} ends in none of the formats written: {', '.join(WRITABLE)}.")
    return [(source, target)]


def _run(
    flags: argparse.Namespace, pairs: list[batch.Pair], work: Callable[[Path, Path], str]
) -> int:
    """Work on the pairs, and say what was written; not into a pipe that the file goes into."""
    if flags.outdir is None:
        [(source, target)] = pairs
        line = printable(f"{target}: {work(source, target)}")
        print(line, file=sys.stdout if target.is_file() else sys.stderr)
        return 0
    todo = [pair for pair in pairs if flags.overwrite or not pair[1].exists()]
    failed = batch.each(flags.command, todo, work)
    count = f"{len(todo) - len(failed)} written, {len(pairs) - len(todo)} there already"
    print(printable(f"{flags.outdir}: {count}, {len(failed)} failed."))
    if flags.csv:
        turn = 1 if flags.command == "compress" else -1  # a picture first
        written = [pair[::turn] for pair in pairs if pair[0] not in failed]
        failed |= batch.write_sizes(flags.csv, written)
    for line in failed.values():
        print(f"{NAME}: {printable(line)}", file=sys.stderr)
    return 1 if failed else 0


def _goal(flags: argparse.Namespace, pixels: int) -> rates.Aim | float:
    """What the file of an image of so many pixels is to be; UsageError for what none can be."""
    if flags.bpp is not None:
        return rates.Aim.of_rate(flags.bpp, pixels)
    if flags.bytes is None and flags.psnr is None:
        return flags.lmbda
    return rates.Aim(flags.bytes, flags.psnr)


def _trained(flags: argparse.Namespace) -> dict[float, dict]:
    """The metadata of the checkpoints to choose from, by the lambdas that they were trained for."""
    _import(flags)
    name = models.canonical_name(flags.model_name or "Hyperprior")
    if flags.checkpoint is not None:
        metadata = checkpoint.read_metadata(flags.checkpoint)
        if flags.model_name and metadata["model"] != name:
            raise UsageError(f"{flags.checkpoint} holds a {metadata['model']}, not a {name}.")
        return {metadata["lmbda"]: metadata}
    lambdas = [] if flags.lmbda is None else [flags.lmbda]
    return checkpoint.by_lambda(name, flags.ckpt_dir, flags.epoch_num, lambdas)


def _choose_device(flags: argparse.Namespace) -> None:
    """Once, before any file. UsageError for a device or precision that is not there."""
    flags.device = choose_device(flags.device)
    check_precision(flags.precision, flags.device)


def _import(flags: argparse.Namespace) -> None:
    for module in flags.import_module:
        importlib.import_module(module)


def _load(flags: argparse.Namespace, path: str | Path) -> Codec:
    """A codec in the precision asked for, which shows the tiles of large images and its search."""

    def shown(items: Sequence) -> Iterator:
        kind = ("search", "step") if isinstance(items, range) else (flags.command, "tile")
        with Progress(kind[0], len(items), kind[1]) as progress:
            for item in items:
                yield item
                progress.step()

    model = checkpoint.load(path, flags.device)
    model.progress = shown
    return model.use(flags.precision)


COMMANDS = {"compress": compress, "decompress": decompress, "info": info}


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 0, 1 after a failure, 2 for usage, 130 for Ctrl-C."""
    flags, rest = parser().parse_known_args(arguments)
    if flags.command == "info" or any(word.startswith("-") and word != "-" for word in rest):
        flags = parser().parse_args(arguments)
    elif rest:  # OUT after a flag
        flags.files += map(Path, rest)
    alone = flags.command == "info" or flags.outdir is None
    left = "nothing was written" if alone else "what was written so far is complete"
    return guarded(NAME, lambda: COMMANDS[flags.command](flags), left)


if __name__ == "__main__":
    sys.exit(main())
