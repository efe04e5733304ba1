"""Our range coder against CompressAI's rANS: time, and bits over the entropy of the tables.

    python -m benchmarks.range_coder [--rounds 9]

Two patterns of calls on the Gaussian tables of a Kodak-sized latent with M = 192: all 294,912
symbols at once, as the hyperprior codes them, and the wavefront's 141 calls. Symbols are
drawn from our tables themselves, scales vary over channels and positions. Times include
what each library needs to get from arrays to bytes and back: CompressAI takes Python lists.

Writes range_coder.csv.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from benchmarks.records import add_outdir, number, outdir, print_table, write_csv
from benchmarks.timing import alternate, spread
from evaluation.reference import import_compressai
from models.coding.orders import wavefront
from models.coding.range_coder import CodingTables, Reader, Writer
from models.entropy.gaussian import SCALE_LEVELS
from models.entropy.tables import TOTAL, Tables, gaussian_tables


def draw(
    tables: Tables, height: int, width: int, channels: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """(symbols, indexes), each (positions, channels), and the symbols' ideal bits.

    Indexes fall from the first channel, with a wide table, to the last, with the narrowest,
    and vary by a few levels over the positions. Escapes, one in 10**9, are left out.
    """
    random = np.random.default_rng(0)
    centre = np.linspace(0.55 * SCALE_LEVELS, 0, channels)
    indexes = np.rint(centre + random.normal(0, 3, (height * width, channels)))
    indexes = indexes.clip(0, SCALE_LEVELS - 1).astype(np.int64)
    symbols = np.empty_like(indexes)
    bits = 0.0
    for table, row in enumerate(tables.rows()):
        here = indexes == table
        inside = row[:-1] / row[:-1].sum()
        slots = random.choice(len(inside), size=int(here.sum()), p=inside)
        symbols[here] = slots + tables.first[table]
        bits += float(np.log2(TOTAL / row[slots]).sum())
    return symbols, indexes, bits


class Ours:
    """The calls of `models.coding.loop` without the networks between them."""

    def __init__(self, tables: Tables, symbols: np.ndarray, indexes: np.ndarray, order: list):
        self.tables = CodingTables(tables)
        values = torch.from_numpy(symbols).double()
        self.steps = [(values[p][None], torch.from_numpy(indexes)[p][None]) for p in order]

    def encode(self) -> bytes:
        writer = Writer(self.tables, 1)
        for symbols, indexes in self.steps:
            writer.code(symbols, indexes)
        return writer.finish()[0]

    def decode(self, data: bytes) -> list[np.ndarray]:
        reader = Reader(self.tables, [data])
        return [reader.code(None, indexes).numpy().ravel() for _, indexes in self.steps]


class Theirs:
    """CompressAI's coder as its autoregressive model calls it."""

    def __init__(self, symbols: np.ndarray, indexes: np.ndarray, order: list):
        compressai = import_compressai()
        self.ans = compressai.ans
        prior = compressai.entropy_models.GaussianConditional(None)
        prior.update_scale_table(compressai.models.google.get_scale_table())
        self.tables = (
            prior.quantized_cdf.tolist(), prior.cdf_length.tolist(), prior.offset.tolist()
        )  # fmt: skip
        self.steps = [(symbols[p].ravel(), indexes[p].ravel()) for p in order]

    def encode(self) -> bytes:
        encoder = self.ans.BufferedRansEncoder()
        for symbols, indexes in self.steps:
            encoder.encode_with_indexes(symbols.tolist(), indexes.tolist(), *self.tables)
        return encoder.flush()

    def decode(self, data: bytes) -> list[np.ndarray]:
        decoder = self.ans.RansDecoder()
        decoder.set_stream(data)
        return [
            np.array(decoder.decode_stream(indexes.tolist(), *self.tables))
            for _, indexes in self.steps
        ]


def measure(height: int, width: int, channels: int, rounds: int) -> list[dict]:
    """The rows of the table."""
    tables = gaussian_tables()
    symbols, indexes, ideal = draw(tables, height, width, channels)
    patterns = {"one call": [torch.arange(height * width)], "wavefront": wavefront(height, width)}
    rows = []
    for pattern, order in patterns.items():
        coders = {
            "ours": Ours(tables, symbols, indexes, order),
            "compressai": Theirs(symbols, indexes, [p.numpy() for p in order]),
        }
        data = {name: coder.encode() for name, coder in coders.items()}
        tasks = {}
        for name, coder in coders.items():
            read = np.concatenate(coder.decode(data[name]))
            wanted = np.concatenate([symbols[p.numpy()].ravel() for p in order])
            if not np.array_equal(read, wanted):
                raise RuntimeError(f"{name}, {pattern}: what was read is not what was written.")
            tasks[f"{name} encode"] = coder.encode
            tasks[f"{name} decode"] = lambda c=coder, d=data[name]: c.decode(d)
        seconds = alternate(tasks, rounds)
        for name in coders:
            row = {"coder": name, "calls": len(order), "symbols": symbols.size}
            for direction in ("encode", "decode"):
                middle, low, high = (
                    number(1e3 * v) for v in spread(seconds[f"{name} {direction}"])
                )
                row |= {f"{direction}_ms": middle, f"{direction}_quartiles": f"{low} to {high}"}
            over = 100 * (8 * len(data[name]) / ideal - 1)
            rows.append(row | {"bytes": len(data[name]), "over_entropy_percent": f"{over:.4f}"})
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.range_coder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=9)
    add_outdir(parser)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of the program")
    options = parser.parse_args(arguments)
    shape = (4, 6, 12, 1) if options.quick else (32, 48, 192, options.rounds)
    rows = measure(*shape)
    print_table(rows)
    write_csv(outdir(parser, options, free=["rounds"]) / "range_coder.csv", rows)


if __name__ == "__main__":
    main()
