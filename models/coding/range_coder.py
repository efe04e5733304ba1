"""A range coder over integer tables, with one interface for both directions.

`code(symbols, indexes) -> symbols`: a `Writer` stores what it is given, a `Reader`
ignores the first argument and returns what it read. Both wrap the range coder of `constriction`.
"""

from __future__ import annotations

from collections.abc import Sequence

import constriction
import numpy as np
import torch
from torch import Tensor

from models.coding.gain import ONE, Gain
from models.entropy.tables import Tables
from models.errors import StreamError

WORD = 16  # bits of an escaped symbol that are coded at a time
POWERS = np.left_shift(np.uint64(1), np.arange(64, dtype=np.uint64))
BLOCK = 1 << 20  # symbols that temporaries are made for at a time


class CodingTables:
    """`Tables` in the coder's own form.

    The library computes the left edge of entry i as floor(scale * sum of the masses
    before it) + i with scale = (2**24 - n) / sum of all masses. Given frequency - 1 as
    masses, the scale is 1 and every product is an integer below 2**24, so its fixed-point
    model is our integer table, exactly.
    """

    def __init__(self, tables: Tables):
        self.escape = tables.lengths.astype(np.int64) - 1
        self.first = tables.first.astype(np.int64)
        self.index_type = np.uint8 if len(tables) <= 256 else np.uint16
        model = constriction.stream.model
        self.lengths, self.words = model.Uniform(len(POWERS) + 1), model.Uniform()
        self.models = [
            model.Categorical((row - 1).astype(np.float64), perfect=False) for row in tables.rows()
        ]


class Writer:
    """Encodes a batch of images, one stream each. `gain`: of the latents, for the coding loop."""

    def __init__(self, tables: CodingTables, batch: int, gain: Gain = ONE):
        self.tables, self.gain = tables, gain
        self.encoders = [constriction.stream.queue.RangeEncoder() for _ in range(batch)]

    def code(self, symbols: Tensor, indexes: Tensor) -> Tensor:
        """Append symbols (B, n, C), integers in float64, with their tables' indexes."""
        values, rows = symbols.cpu().numpy(), indexes.cpu().numpy()
        for encoder, value, row in zip(self.encoders, values, rows, strict=True):
            self._encode(encoder, value.ravel(), row.ravel().astype(self.tables.index_type))
        return symbols

    def _encode(self, encoder, symbols: np.ndarray, indexes: np.ndarray) -> None:
        tables = self.tables
        slots = np.empty(len(symbols), dtype=np.int32)
        outside = []  # the symbols that are escaped
        for start in range(0, len(symbols), BLOCK):
            block = slice(start, start + BLOCK)
            wide = symbols[block].astype(np.int64)
            offset, escape = wide - tables.first[indexes[block]], tables.escape[indexes[block]]
            escaped = (offset < 0) | (offset >= escape)
            slots[block] = np.where(escaped, escape, offset)
            if escaped.any():
                outside.append(wide[escaped])
        order, groups = _groups(indexes)
        slots = slots[order]
        for table, start, end in groups:
            encoder.encode(slots[start:end], tables.models[table])
        if outside:
            self._escape(encoder, np.concatenate(outside))

    def _escape(self, encoder, symbols: np.ndarray) -> None:
        """Symbols of any size (n,), as Elias' gamma code has them: length, then bits."""
        folded, lengths = _folded(symbols)
        encoder.encode(lengths.astype(np.int32), self.tables.lengths)
        for shift, here, sizes in _words(lengths):
            parts = folded[here] >> np.uint64(shift) & (sizes - 1).astype(np.uint64)
            encoder.encode(parts.astype(np.int32), self.tables.words, sizes)

    def finish(self) -> list[bytes]:
        """The streams, one per image."""
        return [e.get_compressed().astype("<u4").tobytes() for e in self.encoders]


class Reader:
    """Decodes what a `Writer` wrote, from the same tables and indexes, at the same gain."""

    def __init__(self, tables: CodingTables, streams: Sequence[bytes], gain: Gain = ONE):
        self.tables, self.gain = tables, gain
        if any(len(stream) % 4 for stream in streams):
            raise StreamError("A stream is cut short: its length is not a multiple of 4 bytes.")
        words = [np.frombuffer(stream, "<u4").astype(np.uint32) for stream in streams]
        self.decoders = [constriction.stream.queue.RangeDecoder(w) for w in words]

    def code(self, symbols: None, indexes: Tensor) -> Tensor:
        """Read one symbol for each of the indexes (B, n, C); float64 on their device."""
        rows = indexes.cpu().numpy()
        values = np.empty(rows.shape)
        try:
            for decoder, row, value in zip(self.decoders, rows, values, strict=True):
                indexes_here = row.ravel().astype(self.tables.index_type)
                self._decode(decoder, indexes_here, value.reshape(-1))  # a view
        except AssertionError as error:  # how the library reports an impossible state
            raise StreamError("A stream is damaged: it holds no valid symbols.") from error
        return torch.from_numpy(values).to(indexes.device)

    def _decode(self, decoder, indexes: np.ndarray, symbols: np.ndarray) -> None:
        """Read a symbol for each index into `symbols`."""
        tables = self.tables
        order, groups = _groups(indexes)
        read, slots = (np.empty(len(indexes), dtype=np.int32) for _ in range(2))
        for table, start, end in groups:
            read[start:end] = decoder.decode(tables.models[table], end - start)
        slots[order] = read
        outside = []  # where the escaped symbols are
        for start in range(0, len(indexes), BLOCK):
            block = slice(start, start + BLOCK)
            symbols[block] = slots[block] + tables.first[indexes[block]]
            escaped = slots[block] == tables.escape[indexes[block]]
            if escaped.any():
                outside.append(np.flatnonzero(escaped) + start)
        if outside:
            where = np.concatenate(outside)
            symbols[where] = self._escaped(decoder, len(where))

    def _escaped(self, decoder, count: int) -> np.ndarray:
        """The inverse of `Writer._escape`: (count,) int64."""
        lengths = decoder.decode(self.tables.lengths, count).astype(np.int64)
        folded = np.where(lengths > 0, POWERS[np.maximum(lengths, 1) - 1], np.uint64(0))
        for shift, here, sizes in _words(lengths):
            parts = decoder.decode(self.tables.words, sizes).astype(np.uint64)
            folded[here] |= parts << np.uint64(shift)
        return (folded >> np.uint64(1)).astype(np.int64) ^ -(folded & np.uint64(1)).astype(np.int64)

    def finish(self) -> None:
        """StreamError if a stream holds more than was read."""
        if not all(decoder.maybe_exhausted() for decoder in self.decoders):
            raise StreamError("A stream is damaged: data are left over after the last symbol.")


def escape_bits(symbols: np.ndarray) -> np.ndarray:
    """What follows the escape of each symbol (n,), in bits: its length and its bits."""
    lengths = _folded(symbols)[1]
    return np.log2(len(POWERS) + 1) + np.maximum(lengths - 1, 0)


def _folded(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """0, -1, 1, -2 ... as 0, 1, 2, 3 ..., (n,) uint64, and how many bits each of these has."""
    wide = symbols.astype(np.int64)
    folded = (wide << 1 ^ wide >> 63).astype(np.uint64)
    return folded, np.searchsorted(POWERS, folded, side="right")


def _words(lengths: np.ndarray):
    """The bits below each number's highest, in words: (shift, which have one, its 2**bits)."""
    for shift in range(0, len(POWERS), WORD):
        bits = np.clip(lengths - 1 - shift, 0, WORD)
        here = bits > 0
        if here.any():
            yield shift, here, np.left_shift(1, bits[here]).astype(np.int32)


def _groups(indexes: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """The positions sorted by table, and (table, start, end) of each table in use therein.

    A call of the library costs as much as a dozen symbols, so symbols that share a table
    are coded together: tables ascending, positions in order. Small integer types make numpy
    sort by counting.
    """
    order = np.argsort(indexes, kind="stable")
    counts = np.bincount(indexes)
    ends = np.cumsum(counts)
    spans = zip((ends - counts).tolist(), ends.tolist(), strict=True)
    return order, [(table, *span) for table, span in enumerate(spans) if span[0] < span[1]]
