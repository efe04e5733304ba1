"""Compress one's own photographs with the trained codecs, and look into the files.

    python codec.py compress photo.png photo.lic
    python codec.py info photo.lic
    python codec.py decompress photo.lic decoded.png
    python codec.py compress photo.png photo.lic --bpp 0.42
    python codec.py compress photo.png photo.lic --psnr 35 --effort 200

A file names the tables it needs, and with them the checkpoint that decodes it. The checkpoints are
the study's, which lie in ckpts/ beside this program, unless a flag says otherwise.
"""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback

import argparse
import importlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import models
from models import checkpoint, rates, search
from models.base import Codec
from models.cli import Progress, choose_device, guarded
from models.coding.container import Header, read_file, read_header, scan_file
from models.errors import CheckpointError, UsageError
from models.files import write_bytes
from models.images import WRITABLE, read_image, to_tensor, to_uint8, write_image
from models.layers.bf16 import PRECISIONS
from models.presets import MAX_PIXELS

AIMS = ("lmbda", "bpp", "bytes", "psnr")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="codec.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("compress", help="an image to a compressed file")
    add = command.add_argument
    add("input", type=Path, metavar="IN", help="PNG, JPEG, WebP, TIFF, ...; turned as EXIF says")
    add("output", type=Path, metavar="OUT", help="the compressed file, by custom *.lic")
    add("--model_name", help="a model (default: Hyperprior, or that of --checkpoint)")
    add("--lmbda", type=float,
        help="trade-off, of those trained or any between and around them (default: the largest "
        "trained, best quality)")  # fmt: skip
    add("--epoch_num", type=int, metavar="E", help="epoch of the checkpoint (default: the newest)")
    add("--effort", type=int, default=0, metavar="N",
        help="steps of a search for a smaller file of the same kind (default: %(default)s)",
        )  # fmt: skip
    add("--bpp", type=float, metavar="X",
        help="at most so many bits per pixel, and nearly as many")  # fmt: skip
    add("--bytes", type=int, metavar="N", help="the same in bytes of the file")
    add("--psnr", type=float, metavar="X", help="the smallest file of at least so many dB")
    _shared(command)

    command = commands.add_parser("decompress", help="a compressed file to an image")
    add = command.add_argument
    add("input", type=Path, metavar="IN", help="the compressed file")
    add("output", type=Path, metavar="OUT", help=f"the image: {', '.join(WRITABLE)}")
    _shared(command)

    command = commands.add_parser("info", help="what a compressed file says about itself")
    add = command.add_argument
    add("input", type=Path, metavar="FILE", help="the compressed file")
    add("--json", action="store_true", help="for programs")
    return made


def _shared(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--checkpoint", type=Path, metavar="FILE", help="use this one of train.py's checkpoints")
    add("--ckpt_dir", type=Path, default=checkpoint.STUDY, metavar="DIR",
        help="where to look for checkpoints (default: %(default)s)")  # fmt: skip
    add("--max_pixels", type=int, default=MAX_PIXELS, metavar="N",
        help="refuse images of more pixels with padding, a guard against hostile files "
        "(default: %(default)s)",
        )  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda (default: a GPU if there is one)")
    add("--precision", choices=PRECISIONS, default="fp32",
        help="of the transforms: bf16 takes half the time where the device computes in it; files "
        "of one can be read in the other (default: %(default)s)",
        )  # fmt: skip
    add("--import_module", action="append", default=[], metavar="MODULE",
        help="import first: one that registers your own model")  # fmt: skip


def compress(flags: argparse.Namespace) -> int:
    """IN, an image, to OUT, a compressed file."""
    _check_output(flags)
    search.check_effort(flags.effort)
    _check_aim(flags)
    name, trained, unwatched = _codecs_to_write(flags)
    load = lambda lmbda: _watched(unwatched(lmbda), flags)  # noqa: E731
    lmbda, gain = max(trained), 1.0
    if flags.lmbda is not None:
        lmbda, gain = rates.at_lambda(trained, flags.lmbda)
    pixels = read_image(flags.input, flags.max_pixels)
    count = pixels.shape[0] * pixels.shape[1]
    x = to_tensor(pixels).to(_device(flags))
    most = flags.bytes if flags.bpp is None else max(math.floor(flags.bpp * count / 8), 1)
    try:
        with _steps_shown() as watch:
            if most is not None or flags.psnr is not None:
                aim = rates.Aim(most, flags.psnr)
                model, data = rates.fit(load, trained, x, aim, flags.effort, watch=watch)
            elif flags.effort:
                model = load(lmbda)
                data = search.compress(model, x, flags.effort, gain, watch=watch)
            else:
                model = load(lmbda)
                (data,) = model.compress(x, gain)
    except ValueError as error:
        raise UsageError(f"{flags.input} cannot be compressed: {error}") from error
    write_bytes(flags.output, data)
    size = f"{len(data)} bytes, {8 * len(data) / count:.4f} bits per pixel"
    _say(flags, f"{size}, {name}, {_point_of(read_header(data))}", model)
    return 0


def _point_of(header: Header) -> str:
    """The lambda of a file's checkpoint, and that which its gain stands for."""
    if header.gain == 1:
        return f"lambda {header.lmbda:g}"
    return f"lambda {header.lmbda * header.gain**2:.3g} by a gain of {header.gain:.4f}"


def decompress(flags: argparse.Namespace) -> int:
    """IN, a compressed file, to OUT, an image."""
    _check_output(flags)
    if flags.output.suffix.lower() not in WRITABLE:
        raise UsageError(
            f"{flags.output} does not end in a format that can be written: {', '.join(WRITABLE)}."
        )
    data, header = read_file(flags.input, flags.max_pixels)
    model = checkpoint.load(_checkpoint_to_read(header, flags), _device(flags))
    model = _watched(model, flags)
    pixels = to_uint8(model.decompress([data], max_pixels=flags.max_pixels))
    write_image(flags.output, pixels)
    _say(flags, f"{header.width}x{header.height} pixels", model)
    return 0


def _say(flags: argparse.Namespace, what: str, model: Codec) -> None:
    """What was written, and by which checkpoint; not into a pipe that the file goes into."""
    if model.metadata["provenance"].get("demonstration"):
        what += ", trained by a demonstration only"
    text = f"{flags.output}: {what}; checkpoint {model.metadata['file']}"
    print(text, file=sys.stdout if flags.output.is_file() else sys.stderr)


def info(flags: argparse.Namespace) -> int:
    """Print the header's fields and where the bytes go."""
    header, size = scan_file(flags.input)
    known = models.MODELS.get(header.model)
    names = known.streams if known and len(known.streams) == len(header.lengths) else None
    names = names or tuple(f"stream {k}" for k in range(1, len(header.lengths) + 1))
    streams = dict(zip(names, header.lengths, strict=True))
    said = {
        "file": str(flags.input),
        "model": header.model,
        "lmbda": header.lmbda,
        "metric": header.metric,
        "gain": header.gain,
        "digest": header.digest,
        "width": header.width,
        "height": header.height,
        "bytes": size,
        "header_bytes": size - sum(header.lengths),
        "stream_bytes": streams,
        "bpp": 8 * size / (header.width * header.height),
    }
    print(json.dumps(said, indent=2) if flags.json else _described(said))
    return 0


def _described(said: dict) -> str:
    bits_per_byte = 8 / (said["width"] * said["height"])
    lines = [
        ("model", said["model"]),
        ("lambda", f"{said['lmbda']:g} ({said['metric']})"),
        ("gain", f"{said['gain']:g}"),
        ("tables", said["digest"]),
        ("image", f"{said['width']}x{said['height']} pixels"),
        ("file", f"{said['bytes']} bytes, {said['bpp']:.4f} bpp"),
        ("  header", f"{said['header_bytes']} bytes with checksum"),
    ]
    for name, count in said["stream_bytes"].items():
        lines.append((f"  {name}", f"{count} bytes, {count * bits_per_byte:.4f} bpp"))
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


# Files and checkpoints ----------------------------------------------------------------------


def _check_output(flags: argparse.Namespace) -> None:
    if flags.output.is_dir():
        raise UsageError(f"{flags.output} is a folder; name a file to write.")
    if flags.output.exists() and flags.input.exists() and flags.output.samefile(flags.input):
        raise UsageError("IN and OUT are the same file.")


def _check_aim(flags: argparse.Namespace) -> None:
    """UsageError for what no file can be asked to be."""
    asked = [f"--{name}" for name in AIMS if getattr(flags, name) is not None]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} each say what the file is to be: keep one.")
    if flags.bpp is not None and not 0 < flags.bpp < math.inf:
        raise UsageError(f"--bpp is a number of bits above 0, not {flags.bpp:g}.")


def _codecs_to_write(
    flags: argparse.Namespace,
) -> tuple[str, list[float], Callable[[float], Codec]]:
    """The model, the lambdas that it was trained for, and what loads the codec of one."""
    _import(flags)
    try:
        name = models.canonical_name(flags.model_name or "Hyperprior")
    except ValueError as error:
        raise UsageError(str(error)) from None
    device, folder, epoch = _device(flags), flags.ckpt_dir, flags.epoch_num
    if flags.checkpoint is not None:
        metadata = checkpoint.read_metadata(flags.checkpoint)
        if flags.model_name and metadata["model"] != name:
            raise UsageError(f"{flags.checkpoint} holds a {metadata['model']}, not a {name}.")
        only = [metadata["lmbda"]]
        return metadata["model"], only, lambda _: checkpoint.load(flags.checkpoint, device)
    paths = checkpoint.find(name, folder, epoch)
    with suppress(CheckpointError):  # there is none of exactly that lambda
        paths = checkpoint.find(name, folder, epoch, flags.lmbda)
    trained = checkpoint.lambdas(paths)
    return name, trained, lambda lmbda: models.load(name, lmbda, epoch, folder, device)


def _checkpoint_to_read(header: Header, flags: argparse.Namespace) -> Path:
    """The checkpoint whose tables the file names, of any epoch."""
    _import(flags)
    if flags.checkpoint is not None:
        return flags.checkpoint
    try:
        folder = flags.ckpt_dir / models.canonical_name(header.model)
    except ValueError as error:
        raise UsageError(f"{error} (--import_module brings in one's own.)") from None
    for path in sorted(folder.glob("*.safetensors")):
        try:
            if checkpoint.read_metadata(path).get("digest") == header.digest:
                return path
        except CheckpointError:
            continue  # another file in the folder is broken; this one may still be there
    raise UsageError(
        f"The file needs the checkpoint of {header.model}, lambda {header.lmbda:g}, with the "
        f"tables {header.digest}, which is not in {folder}: pass it by --checkpoint FILE."
    )


def _import(flags: argparse.Namespace) -> None:
    for module in flags.import_module:
        importlib.import_module(module)


def _watched(model: Codec, flags: argparse.Namespace) -> Codec:
    """The model in the precision asked for; large images show their progress tile by tile."""

    def watched(tiles):
        with Progress(flags.command, len(tiles), "tile") as progress:
            for tile in tiles:
                yield tile
                progress.step()

    model.progress = watched
    return model.use(flags.precision)


@contextmanager
def _steps_shown() -> Iterator[search.Watch]:
    """What shows the steps of searches: how far each is, and what it has reached."""
    with ExitStack() as bars:
        bar: Progress | None = None

        def watch(step: search.Step) -> None:
            nonlocal bar
            if bar is None or step.done == 1:
                bars.close()
                bar = bars.enter_context(Progress("search", step.total, "step"))
            bar.step(f"loss {step.loss:.4f}, {step.bpp:.4f} bpp, {step.psnr:.2f} dB")

        yield watch


def _device(flags: argparse.Namespace):
    return choose_device(flags.device)


COMMANDS = {"compress": compress, "decompress": decompress, "info": info}


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 0, 1 after a failure, 2 for usage, 130 for Ctrl-C."""
    flags = parser().parse_args(arguments)
    return guarded("codec.py", lambda: COMMANDS[flags.command](flags), "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
