"""Write the golden streams: files that every later version must decode to the same symbols.

    python -m tests.golden.make

For each model, a file and one of another gain, and in golden.json, by the files' names, the digest
of the tables and integer weights and that of the latents they hold. Weights and latents come from
the raw bits of PCG64, the same everywhere (tests.helpers.uniform); the tables, which are made of
transcendental functions and may differ in the last unit between versions of torch, are stored in
tables.npz. Run it again only when the format or the arithmetic is changed on purpose: old files do
not decode then.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from torch import Tensor

from models.base import Codec
from models.coding.container import Header, pack
from models.coding.gain import Gain
from models.entropy.tables import Tables
from models.files import atomic_write, write_bytes, write_text
from tests.helpers import NAMES, digest, grid, latents_of, make

FOLDER = Path(__file__).resolve().parent
HEIGHT, WIDTH = 125, 190  # 8 x 12 latents; not multiples of 64
PADDED = 128, 192
GAIN = 0.72
FILES = {name: (name, 1.0) for name in NAMES} | {f"{name}-gain": (name, GAIN) for name in NAMES}
FIELDS = ("frequencies", "lengths", "first", "offsets")


def model_of(name: str, tables: dict[str, Tables]) -> Codec:
    """The tiny model of a golden stream, frozen with stored tables."""
    model = make(name, seed=11)
    return model.freeze({latent: tables[key] for latent, key in table_keys(model).items()})


def table_keys(model: Codec) -> dict[str, str]:
    """Latent -> its tables in tables.npz. One Gaussian set serves all, and one density set."""
    if "z" in model.streams:
        return {"z": f"density{model.N}", "y": "gaussian"}
    return {"y": f"density{model.M}"}


def read_tables() -> dict[str, Tables]:
    """The stored tables by name."""
    with np.load(FOLDER / "tables.npz", allow_pickle=False) as stored:
        names = {key.split(".")[0] for key in stored}
        return {n: Tables(*(stored[f"{n}.{field}"] for field in FIELDS)) for n in names}


def latents(model: Codec) -> dict[str, Tensor]:
    """What is coded: also symbols far outside every table."""
    return latents_of(model, *PADDED, seed=11)


def write_tables() -> None:
    found: dict[str, Tables] = {}
    for name in NAMES:
        model = make(name, seed=11).freeze()
        for latent, key in table_keys(model).items():
            found.setdefault(key, model.frozen.tables[latent])
    arrays = {f"{n}.{field}": getattr(t, field) for n, t in found.items() for field in FIELDS}
    with atomic_write(FOLDER / "tables.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def main() -> None:
    write_tables()
    pinned = {}
    for file, (name, gain) in FILES.items():
        model = model_of(name, read_tables())
        streams = model.encode(latents(model), gain)
        gain = Gain(gain).value
        header = Header(name, 0.013, "mse", model.digest, HEIGHT, WIDTH, (), gain)
        data = pack(header, [stream[0] for stream in streams])
        write_bytes(FOLDER / f"{file}.lic", data)
        y_hat = model.decode(streams, *PADDED, gain)
        pinned[file] = {"integers": model.digest, "y_hat": digest(grid(y_hat)), "bytes": len(data)}
    write_text(FOLDER / "golden.json", json.dumps(pinned, indent=2) + "\n")
    print(f"Wrote {len(pinned)} streams into {FOLDER}.")


if __name__ == "__main__":
    main()
