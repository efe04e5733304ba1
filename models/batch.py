"""Many files: where each of them goes, and work on all that one bad file does not stop."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from models.cli import Progress, sentence
from models.coding.container import scan_file
from models.datasets import list_images
from models.errors import UsageError
from models.files import atomic_write, check_target, printable, write_bytes

Pair = tuple[Path, Path]  # what is read, and what is written
PIPE = Path("-")
SIZES = ("picture", "picture_bytes", "file", "bytes", "width", "height", "bpp")


def single(files: Sequence[Path], overwrite: bool) -> Pair:
    """IN and OUT of a command, either may be `PIPE`. UsageError unless OUT may be written."""
    if len(files) != 2 or files[0].is_dir():
        raise UsageError("Name one file to read and one to write, or a folder to write to: -o DIR.")
    source, target = files
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file to write, or -o {target}.")
    check_target(target, source, overwrite)
    return (Path("/dev/stdin") if source == PIPE else source), target


def pairs(inputs: Sequence[Path], folder: Path, suffix: str, wanted: Sequence[str]) -> list[Pair]:
    """Of every file named, and of those inside the folders named that end in one of `wanted`.

    Of the folder photos, photos/b/a.jpg becomes folder/b/a.lic, or a.jpg.lic where there is a.png
    too. UsageError for two that would become one, for a file that is its own source, and for a
    `folder` that is called as a file; ImageError for a folder without files to read.
    """
    if folder.suffix.lower() in (suffix, *wanted):
        raise UsageError(f"-o {folder} is to be a folder; for one file: IN OUT.")
    files: list[Pair] = []
    for path in inputs:
        if path.is_dir():
            images = list_images(path, recursive=True, suffixes=wanted)
            files += [(image, folder / image.relative_to(path)) for image in images]
        else:
            files.append((path, folder / path.name))
    count = Counter(target.with_suffix(suffix) for _, target in files)
    sources: dict[Path, Path] = {}
    for source, place in files:
        target = place.with_suffix(suffix)
        if count[target] > 1:
            target = place.with_name(place.name + suffix)
        check_target(target, source, overwrite=True)
        other = sources.setdefault(target, source)
        if other != source:
            raise UsageError(f"{other} and {source} would both become {target}: use two folders.")
    return [(source, target) for target, source in sources.items()]


def write(path: Path, data: bytes) -> None:
    """Write a file atomically, or into the standard output for `PIPE`."""
    if path != PIPE:
        return write_bytes(path, data)
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def each(label: str, todo: Sequence[Pair], work: Callable[[Path, Path], object]) -> dict[Path, str]:
    """Do the work on all pairs, with its progress; a sentence on each source that failed."""
    failed = {}
    with Progress(label, len(todo), "file") as progress:
        for source, target in todo:
            try:
                work(source, target)
            except Exception as error:
                line = sentence(error)
                if line is None:
                    raise
                failed[source] = line if str(source) in line else f"{source}: {line}"
            progress.step(printable(source.name))
    return failed


def write_sizes(path: Path, written: Sequence[Pair]) -> dict[Path, str]:
    """Write a CSV of `SIZES` on pictures and their compressed files; a sentence on each failure."""
    rows: list[Sequence] = [SIZES]

    def add(picture: Path, file: Path) -> None:
        header, size = scan_file(file)
        width, height = header.width, header.height
        sizes = picture.stat().st_size, printable(file), size, width, height
        rows.append((printable(picture), *sizes, f"{8 * size / (width * height):.6f}"))

    failed = each("sizes", written, add)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return failed
