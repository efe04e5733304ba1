"""Write the conformance vectors: files, checkpoints and images that a decoder must agree with.

    python -m tests.golden.vectors

docs/format.md describes the files, vectors.json says what each exercises, and `python -m
tests.conformance COMMAND` tries a decoder on them. The checkpoints are tiny, with random weights
and with tables cut to 24 symbols, so that ordinary latents are escaped now and then and
tables computed in place of those stored give other numbers. The last channel of y is read by no
synthesis: it carries latents of any size without spoiling the image. Where there is an h_s, one
channel has no weights, and the scale of y's last channel a bias that takes the bound of the exact
arithmetic to its limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from models import checkpoint, search
from models.base import Codec
from models.coding.container import padded, unpack
from models.coding.gain import Gain
from models.coding.orders import everywhere
from models.coding.range_coder import Reader
from models.entropy.tables import Tables
from models.files import write_bytes, write_text
from models.images import to_uint8, write_image
from models.presets import short
from tests.helpers import NAMES, digest, grid, image, latents_of, make

FOLDER = Path(__file__).resolve().parent
VECTORS = FOLDER / "vectors.json"
CHANNELS = {"N": 6, "M": 8}
RADIUS = 12  # of the tables, symbols -12 to 11
GAINS = {"gain-low": 0.4, "gain-high": 1.7}
# From a symbol that takes one bit to those that take all four words, and more than y_hat can hold.
WILD = (-13, 12, 300, -(2**17), 2**24 + 5, -(2**33) - 1, 2**49 + 2**20, -(2**51))


def cut(tables: dict[str, Tables]) -> dict[str, Tables]:
    """Every table with all but 24 symbols, or what they have, left to the escape."""
    return {latent: _cut(wide) for latent, wide in tables.items()}


def _cut(tables: Tables) -> Tables:
    rows, first = [], np.maximum(tables.first, -RADIUS)
    for row, start, kept in zip(tables.rows(), tables.first, first, strict=True):
        inside = row[kept - start : min(len(row) - 1, RADIUS - start)]
        rows.append(np.append(inside, row.sum() - inside.sum()))
    frequencies, lengths = np.concatenate(rows), np.array([len(row) for row in rows])
    return Tables(
        *(part.astype(np.int32) for part in (frequencies, lengths, first, tables.offsets))
    )


def write_checkpoint(name: str) -> Codec:
    """A tiny model of random weights, as its checkpoint has it."""
    model = make(name, seed=40, y_gain=20.0, **CHANNELS)
    with torch.no_grad():
        model.g_s[0].weight[-1] = 0
        model.g_s[-1].weight.mul_(0.02)  # latents are large, inverse GDN squares them
        if "z" in model.streams:
            model.h_s[0].weight[:, 0] = 0
            head = getattr(model, "entropy_parameters", model.h_s)
            last = next(m for m in reversed(head) if hasattr(m, "weight"))
            last.weight[CHANNELS["M"] - 1].mul_(2**-10)
            last.bias[CHANNELS["M"] - 1] = 3e6  # needs fewer fraction bits than 24
    path = FOLDER / f"{short(name)}.safetensors"
    wide = type(model).frozen_tables
    with mock.patch.object(type(model), "frozen_tables", lambda m: cut(wide(m))):
        checkpoint.save(path, model, config={}, provenance={})
    return checkpoint.load(path)


def wild(model: Codec, height: int, width: int) -> bytes:
    """A file of latents outside their tables, as large as an escape holds them."""
    latents = latents_of(model, *padded(height, width, model.downsampling), seed=3)
    for values in latents.values():
        flat = values.clamp_(-40, 40).view(-1)[-len(WILD) :]
        flat.copy_(torch.tensor(WILD[-len(flat) :]))
    return model.files(latents, height, width)[0]


def files(model: Codec) -> Iterator[tuple[str, str, bytes]]:
    """(name, what it exercises, the file) of each vector."""
    yield "plain", "a photograph-like image, 48 x 64 pixels", model.compress(image(48, 64))[0]
    odd = model.compress(image(65, 33, seed=1))[0]
    yield "odd", "65 x 33 pixels: padding to whole positions, and cutting it off again", odd
    yield "escapes", "symbols outside their tables, up to 52 bits", wild(model, 64, 32)
    searched = search.compress(model, image(40, 40, seed=2), effort=200)
    if searched == model.compress(image(40, 40, seed=2))[0]:
        raise RuntimeError("The search found nothing: take more steps.")
    yield "searched", "latents that g_a did not give (`--effort`)", searched
    for name, gain in GAINS.items():
        exercises = f"the format's version 2: a gain of {round(gain * 4096)}/4096"
        yield name, exercises, model.compress(image(32, 32, seed=3), gain)[0]


class _Recorder:
    """A reader that remembers what it reads."""

    def __init__(self, reader: Reader):
        self.reader, self.gain, self.symbols = reader, reader.gain, []

    def code(self, symbols: None, indexes: Tensor) -> Tensor:
        self.symbols.append(self.reader.code(symbols, indexes))
        return self.symbols[-1]


@torch.no_grad()
def read(model: Codec, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Symbols of all latents, each (C, h, w) behind the other, and y_hat (M, h, w) in 1/64."""
    header, streams = unpack(data)
    shapes = model.latent_shapes(1, *padded(header.height, header.width, model.downsampling))
    coders = {
        name: _Recorder(Reader(tables, [stream], gain))
        for (name, tables, gain), stream in zip(
            model._parts(Gain(header.gain)), streams, strict=True
        )
    }
    y_hat = model.code(coders, {}, shapes)
    parts = []
    for name in model.streams:
        _, channels, height, width = shapes[name]
        order = getattr(model, "order", everywhere) if name == "y" else everywhere
        values = torch.empty(height * width, channels, dtype=torch.float64)
        values[torch.cat(order(height, width))] = torch.cat(coders[name].symbols, 1)[0]
        parts.append(values.T.flatten())
    return torch.cat(parts).to(torch.int64).numpy(), grid(y_hat[0])


def main() -> None:
    vectors = {}
    for name in NAMES:
        model = write_checkpoint(name)
        for kind, exercises, data in files(model):
            vector = f"{short(name)}-{kind}"
            write_bytes(FOLDER / f"{vector}.lic", data)
            write_image(FOLDER / f"{vector}.png", to_uint8(model.decompress([data])))
            symbols, y_hat = read(model, data)
            vectors[vector] = {
                "exercises": exercises,
                "checkpoint": f"{short(name)}.safetensors",
                "symbols": digest(symbols),
                "y_hat": digest(y_hat),
            }
    write_text(VECTORS, json.dumps(vectors, indent=2) + "\n")
    print(f"Wrote {len(vectors)} vectors into {FOLDER}.")


if __name__ == "__main__":
    main()
