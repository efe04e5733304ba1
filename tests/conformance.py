"""Which files of the format a decoder reads, and which damaged ones it refuses.

    python -m tests.conformance python docs/decoder.py --digest

The command is given three more arguments: a file, its checkpoint and the PNG to write. It passes a
file of tests/golden/vectors.json if it ends with status 0, its image is within one level of ours,
and the lines `symbols SHA256` and `y_hat SHA256`, where it prints them, are those of the vector. It
passes a damaged file if it ends with another status within a minute and writes no image. What the
integers are and how they are ordered is told in docs/format.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.images import read_image
from tests.fuzz.damage import Fields, put_together, take_apart

GOLDEN = Path(__file__).resolve().parent / "golden"
TIME_LIMIT = 60  # seconds for a file, of which a usual one takes less than one
DIGESTS = ("symbols", "y_hat")
DAMAGED = "Hyperprior-plain"  # the file that damaged ones are made of

# Lies whose checksum fits, and plain damage: what is made of a sound file, and of its bytes.
LIES: dict[str, Callable[[Fields], dict]] = {
    "another version": lambda fields: {"version": 9},
    "no pixels": lambda fields: {"height": 0},
    "2^40 pixels": lambda fields: {"height": 2**20, "width": 2**20},
    "another checkpoint": lambda fields: {"digest": bytes(8)},
    "a stream too few": lambda fields: _streams(fields, fields.streams[1:]),
    "half a word": lambda fields: _streams(fields, (*fields.streams[:-1], b"ab")),
    "words left over": lambda fields: _streams(fields, (*fields.streams[:-1], bytes(400))),
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "cut short": lambda data: data[:-5],
    "a byte more": lambda data: data + b"\0",
    "one bit flipped": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
}


def _streams(fields: Fields, streams: tuple[bytes, ...]) -> dict:
    return {"count": len(streams), "lengths": tuple(map(len, streams)), "streams": streams}


def vectors() -> dict[str, dict[str, str]]:
    """What vectors.json says of each file: exercises, checkpoint, symbols and y_hat."""
    return json.loads((GOLDEN / "vectors.json").read_text(encoding="utf-8"))


def damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(what is wrong, the file) of files that must be refused."""
    fields = take_apart(data)
    for name, lie in LIES.items():
        yield name, put_together(replace(fields, **lie(fields)))
    for name, damage in DAMAGES.items():
        yield name, damage(data)


def decodes(command: Sequence[str], name: str, vector: dict[str, str]) -> str:
    """Why a command does not pass a vector, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.png")
        status, output = _run(command, GOLDEN / f"{name}.lic", vector["checkpoint"], image)
        if status or not image.is_file():
            return f"status {status}, no image: {output.strip()[-200:]}"
        pixels, ours = read_image(image), read_image(GOLDEN / f"{name}.png")
    printed = dict(line.split() for line in output.splitlines() if line.startswith(DIGESTS))
    if wrong := [key for key in DIGESTS if printed.get(key, vector[key]) != vector[key]]:
        return f"other {' and '.join(wrong)}"
    if pixels.shape != ours.shape:
        return f"an image of {pixels.shape}, not {ours.shape}"
    farthest = np.abs(pixels.astype(int) - ours).max()
    return f"pixels {farthest} levels from ours" if farthest > 1 else ""


def refuses(command: Sequence[str], data: bytes, vector: dict[str, str]) -> str:
    """Why a command does not pass a damaged file, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        file, image = Path(folder, "file.lic"), Path(folder, "image.png")
        file.write_bytes(data)
        status, _ = _run(command, file, vector["checkpoint"], image)
        return "an image of it" if status == 0 or image.exists() else ""


def _run(command: Sequence[str], file: Path, checkpoint: str, image: Path) -> tuple[int | str, str]:
    arguments = [*command, str(file), str(GOLDEN / checkpoint), str(image)]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return f"none after {TIME_LIMIT} seconds", ""
    return done.returncode, done.stdout + done.stderr


def main(command: Sequence[str]) -> int:
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    passed = total = 0

    def tell(name: str, exercises: str, fault: str) -> None:
        nonlocal passed, total
        passed, total = passed + (not fault), total + 1
        print(f"{'FAILS' if fault else 'passes'}  {name}: {fault or exercises}", flush=True)

    for name, vector in vectors().items():
        tell(name, vector["exercises"], decodes(command, name, vector))
    for wrong, data in damaged((GOLDEN / f"{DAMAGED}.lic").read_bytes()):
        tell(f"{DAMAGED}, {wrong}", "refused", refuses(command, data, vectors()[DAMAGED]))
    print(f"{passed} of {total} passed.")
    return int(passed < total)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
