"""The range coder: its size is that of the integer tables, and what is written is read."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.coding.range_coder import CodingTables, Reader, Writer, escape_bits
from models.entropy.tables import TOTAL, Tables, gaussian_tables, to_frequencies
from models.errors import StreamError
from tests.helpers import uniform


def tables_of(*rows, first=None):
    """Tables with the given frequencies, the last of each row being the escape."""
    lengths = [len(row) for row in rows]
    first = [0] * len(rows) if first is None else first
    parts = (np.concatenate(rows), lengths, first, [0] * len(rows))
    return Tables(*(np.array(part, dtype=np.int32) for part in parts))


@pytest.fixture(scope="module")
def gaussians():
    return gaussian_tables()


@pytest.fixture(scope="module")
def coding(gaussians):
    return CodingTables(gaussians)


def write(coding, *calls):
    """(symbols, indexes), each (B, n, C) or (n,) for one image -> streams."""
    calls = [[torch.as_tensor(part) for part in call] for call in calls]
    batch = calls[0][0].shape[0] if calls[0][0].ndim == 3 else 1
    writer = Writer(coding, batch)
    for symbols, indexes in calls:
        writer.code(symbols.double().view(batch, -1, 1), indexes.view(batch, -1, 1))
    return writer.finish()


def read(coding, streams, *indexes):
    reader = Reader(coding, streams)
    parts = [reader.code(None, torch.as_tensor(i).view(len(streams), -1, 1)) for i in indexes]
    reader.finish()
    return parts


def draw(table, first, count, seed):
    """`count` symbols distributed as a table says, from seeded uniform numbers."""
    edges = np.cumsum(table) / TOTAL
    slots = np.searchsorted(edges, uniform([seed], count, low=0).numpy(), side="right")
    return first + np.minimum(slots, len(table) - 2)


def test_bits_equal_the_entropy_of_the_tables(gaussians, coding):
    rows = gaussians.rows()
    count = 200_000
    indexes = (uniform([1], count, low=0, high=64)).long().numpy()
    symbols = np.empty(count, dtype=np.int64)
    for t in range(64):
        mine = np.flatnonzero(indexes == t)
        symbols[mine] = draw(rows[t], gaussians.first[t], len(mine), seed=100 + t)
    information = sum(
        -np.log2(rows[t][symbols[indexes == t] - gaussians.first[t]] / TOTAL).sum()
        for t in range(64)
    )
    streams = write(coding, (symbols, indexes))
    assert abs(8 * len(streams[0]) / information - 1) < 1e-3
    bits = np.array([stats.entropy(row, base=2) for row in rows])
    expected = bits[indexes].sum()  # the symbols are typical
    assert abs(8 * len(streams[0]) / expected - 1) < 1e-2
    (back,) = read(coding, streams, indexes)
    assert np.array_equal(back.numpy().ravel(), symbols)


def test_the_librarys_model_is_our_table_edge_by_edge(gaussians):
    """A fresh decoder's point lies in entry i from its left edge on, and not one below.

    The decoder starts with range 2**64 - 1 and its first two words as the point, so that
    quantile q of 2**24 begins at q * ((2**64 - 1) >> 24).
    """
    generator = np.random.default_rng(0)
    rows = [gaussians.rows()[k] for k in (0, 20, 63)]
    rows.append(to_frequencies(generator.random(300) ** 8))
    rows.append(np.array([1, TOTAL - 2, 1]))
    unit = (2**64 - 1) >> 24
    for row in rows:
        coding = CodingTables(tables_of(row))
        edges = np.concatenate([[0], np.cumsum(row)[:-1]])
        for entry in generator.permutation(len(row))[:40]:
            points = [(int(edges[entry]) * unit, entry)]
            if entry:
                points.append((int(edges[entry]) * unit - 1, entry - 1))
            for point, slot in points:
                words = np.array([point >> 32, point & 0xFFFFFFFF], dtype=np.uint32)
                decoder = Reader(coding, [words.astype("<u4").tobytes()]).decoders[0]
                assert decoder.decode(coding.models[0], 1)[0] == slot


def test_edges_of_the_support_are_not_escaped(gaussians, coding):
    """The outermost entries are symbols of their own; one further is an escape and its bits."""
    for table in (0, 40):
        first = int(gaussians.first[table])
        last = first + int(gaussians.lengths[table]) - 2
        sizes = []
        for value in (first, last, first - 1, last + 1):
            symbols, indexes = np.full(50, value), np.full(50, table)
            streams = write(coding, (symbols, indexes))
            assert (read(coding, streams, indexes)[0] == value).all()
            sizes.append(8 * len(streams[0]) / 50)
        escape = np.log2(TOTAL / gaussians.rows()[table][-1])
        for value, size in zip((first - 1, last + 1), sizes[2:], strict=True):
            assert size == pytest.approx(escape + escape_bits(np.array([value]))[0], abs=1)
        assert max(sizes[:2]) <= 25 < min(sizes[2:])


@pytest.mark.parametrize(
    "value,bits", [(0, 0), (-1, 0), (1, 1), (-2, 1), (2, 2), (7, 3), (-8, 3), (2**40, 41)]
)
def test_bits_of_an_escape_by_hand(value, bits):
    """A length of 0 to 64; then, of 0, -1, 1, -2, 2 ... counted from 0, the bits below the top."""
    assert escape_bits(np.array([value])) == pytest.approx(np.log2(65) + bits)


def test_calls_and_batches_of_any_size(coding):
    shape = (3, 40, 5)
    indexes = uniform([2], *shape, low=0, high=64).long()
    symbols = torch.round(uniform([3], *shape) * 30).double()
    calls = [(symbols[:, a:b], indexes[:, a:b]) for a, b in ((0, 1), (1, 1), (1, 30), (30, 40))]

    def streams_of(images):
        writer = Writer(coding, len(range(3)[images]))
        for part, index in calls:
            assert torch.equal(writer.code(part[images], index[images]), part[images])
        return writer.finish()

    streams = streams_of(slice(3))
    reader = Reader(coding, streams)
    back = [reader.code(None, index) for _, index in calls]
    reader.finish()
    assert torch.equal(torch.cat(back, 1), symbols)
    for k in range(3):  # every image has the stream that it has alone
        assert streams_of(slice(k, k + 1)) == streams[k : k + 1]


@st.composite
def table_and_symbols(draw):
    row = st.lists(st.integers(0, 10**9), min_size=2, max_size=40).filter(any)
    rows = draw(st.lists(row, min_size=1, max_size=5))
    first = [draw(st.integers(-1000, 1000)) for _ in rows]
    tables = tables_of(*(to_frequencies(np.array(row, dtype=float)) for row in rows), first=first)
    extremes = st.sampled_from([2**15, -(2**16), 2**31, -(2**31) - 1, 2**53, -(2**53)])
    value = st.integers(-1100, 1100) | st.integers(-(2**53), 2**53) | extremes
    one = st.tuples(value, st.integers(0, len(rows) - 1))
    return tables, draw(st.lists(st.lists(one, max_size=20), min_size=1, max_size=4))


@given(table_and_symbols())
def test_round_trip_of_any_tables_and_symbols(drawn):
    tables, calls = drawn
    coding = CodingTables(tables)
    arrays = [np.array(call, dtype=np.int64).reshape(-1, 2).T for call in calls]
    streams = write(coding, *arrays)
    back = read(coding, streams, *(indexes for _, indexes in arrays))
    for part, (symbols, _) in zip(back, arrays, strict=True):
        assert part.numpy().ravel().tolist() == symbols.tolist()


def test_more_than_256_tables():
    rows = [np.array([k + 1, TOTAL - k - 2, 1]) for k in range(300)]
    coding = CodingTables(tables_of(*rows))
    indexes = np.arange(300).repeat(3)
    symbols = np.arange(900) % 3  # 2 is the escape's place: escaped
    streams = write(coding, (symbols, indexes))
    assert (read(coding, streams, indexes)[0].numpy().ravel() == symbols).all()


def test_damaged_streams_are_one_kind_of_error(coding):
    indexes = np.full(500, 40)
    (stream,) = write(coding, (np.arange(500) % 7, indexes))
    with pytest.raises(StreamError, match="multiple of 4"):
        Reader(coding, [stream[:-1]])
    with pytest.raises(StreamError, match="no valid symbols"):
        read(coding, [b"\xff" * len(stream)], indexes)
    with pytest.raises(StreamError, match="left over"):
        read(coding, [stream + stream], indexes)
    with pytest.raises(StreamError, match="left over"):
        read(coding, [stream], indexes[:100])
