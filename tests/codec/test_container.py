"""The file format: its bytes, its refusals, its header."""

import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.coding.container import (
    MAX_SIDE,
    Header,
    pack,
    read_file,
    read_header,
    scan_file,
    unpack,
)
from models.errors import StreamError
from tests.fuzz.damage import varint
from tests.helpers import peak_memory

HEADER = Header("Hyperprior", 0.013, "mse", "0123456789abcdef", 512, 768, ())
STREAMS = [b"side information", b"", bytes(200)]


def sealed(body):
    """A body with the right checksum."""
    return body + struct.pack("<I", zlib.crc32(body))


def test_the_bytes_are_those_of_the_documentation():
    expected = (
        b"LIC\x01"
        + bytes([2, 0])  # Hyperprior, MSE
        + struct.pack("<f", 0.013)
        + bytes.fromhex("0123456789abcdef")
        + bytes([0x80, 4])  # 512 = 0 + 4 * 128
        + bytes([0x80, 6])  # 768 = 0 + 6 * 128
        + bytes([2, 3, 0xC8, 1])  # two streams, of 3 and of 200 = 72 + 1 * 128 bytes
        + b"abc"
        + bytes(200)
    )
    data = pack(HEADER, [b"abc", bytes(200)])
    assert data == sealed(expected)
    assert len(data) - 203 == 30


@pytest.mark.parametrize("gain,field", [(0.85, "9a1b"), (16, "808004"), (1 / 16, "8002")])
def test_a_gain_is_a_field_before_the_size_in_a_version_of_its_own(gain, field):
    plain = pack(HEADER, STREAMS)
    data = pack(replace(HEADER, gain=gain), STREAMS)
    assert data == sealed(b"LIC\x02" + plain[4:18] + bytes.fromhex(field) + plain[18:-4])
    header, streams = unpack(data)
    assert header.gain == round(gain * 4096) / 4096 and streams == STREAMS
    assert replace(header, gain=1.0) == unpack(plain)[0]
    # A gain of 1 is no lie, only two bytes more than it needs.
    assert unpack(gained(4096)) == unpack(plain)


@given(
    model=st.sampled_from(["Factorized", "CheckerboardAutogressive", "Mine", "A_b9"]),
    lmbda=st.sampled_from([0.0, 0.0067, 0.0483, 220.0]),
    metric=st.sampled_from(["mse", "ms-ssim"]),
    digest=st.binary(min_size=8, max_size=8),
    height=st.integers(1, MAX_SIDE),
    width=st.integers(1, MAX_SIDE),
    streams=st.lists(st.binary(max_size=300), max_size=16),
    gain=st.integers(256, 65536),
)
def test_any_header_and_streams_come_back(
    model, lmbda, metric, digest, height, width, streams, gain
):
    lengths = tuple(len(stream) for stream in streams)
    header = Header(model, lmbda, metric, digest.hex(), height, width, lengths, gain / 4096)
    data = pack(header, streams)
    assert unpack(data) == (header, streams)
    assert read_header(data[: len(data) - sum(lengths) - 4]) == header


BODY = pack(HEADER, STREAMS)[:-4]


def gained(units):
    """A file of version 2 with that gain, in units of 1/4096."""
    return sealed(BODY[:3] + b"\x02" + BODY[4:18] + varint(units) + BODY[18:])


NAN, INFINITY = float("nan"), float("inf")
LIES = {
    "not a compressed file": (b"\x89PNG" + BODY[4:], "not a file compressed"),
    "empty": (b"", "not a file compressed"),
    "newer version": (sealed(BODY[:3] + b"\x03" + BODY[4:]), "format version is 3"),
    "no gain": (gained(0), "gain is 0;"),
    "large gain": (gained(65537), "gain is 16.0002;"),
    "huge gain": (gained(2**35 - 1), "gain is 8.38861e.06; one is 0.0625 to 16"),
    "unknown model": (sealed(BODY[:4] + b"\x63" + BODY[5:]), "unknown model"),
    "nameless model": (sealed(BODY[:4] + b"\x80" + BODY[5:]), "not a name"),
    "unknown metric": (sealed(BODY[:5] + b"\x07" + BODY[6:]), "unknown metric"),
    "lambda not a number": (sealed(BODY[:6] + struct.pack("<f", NAN) + BODY[10:]), "lambda"),
    "negative lambda": (sealed(BODY[:6] + struct.pack("<f", -1.0) + BODY[10:]), "lambda"),
    "no rows": (sealed(BODY[:18] + b"\x00" + BODY[20:]), "a side has 1"),
    "endless number": (sealed(BODY[:18] + b"\xff" * 9 + BODY[20:]), "too long"),
    "long side": (sealed(BODY[:18] + b"\x81\x80\x40" + BODY[20:]), "a side has 1 to"),
    "many streams": (sealed(BODY[:22] + b"\x11" + BODY[23:]), "17 streams"),
    "more bytes than pixels": (sealed(BODY[:23] + b"\xff" * 4 + b"\x7f" + BODY[24:]), "no image"),
    "longer": (BODY + bytes(5), "longer than it says"),
    "checksum": (BODY + bytes(4), "checksum"),
    "bit": (sealed(BODY)[:60] + b"\x01" + sealed(BODY)[61:], "checksum"),
}  # fmt: skip


@pytest.mark.parametrize("data,message", LIES.values(), ids=LIES.keys())
def test_every_lie_is_answered_in_words_also_when_scanned(data, message, tmp_path):
    with pytest.raises(StreamError, match=message) as caught:
        unpack(data)
    assert "\n" not in str(caught.value)
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(StreamError, match=message):
        scan_file(path)
    path.write_bytes(sealed(BODY))
    assert scan_file(path) == (replace(HEADER, lengths=(16, 0, 200)), len(BODY) + 4)


def test_of_a_file_no_more_is_read_than_it_claims(tmp_path):
    """Sparse files of 256 MB, one that claims them and one that does not."""
    path = tmp_path / "file"
    honest = pack(HEADER, STREAMS)
    path.write_bytes(honest)
    assert read_file(path, 512 * 768) == (honest, replace(HEADER, lengths=(16, 0, 200)))
    before = peak_memory()
    with path.open("r+b") as file:
        file.truncate(1 << 28)
    data, _ = read_file(path, 512 * 768)
    assert len(data) == max(len(honest), 512) + 1
    with pytest.raises(StreamError, match=f"longer than it says: it should have {len(honest)}"):
        unpack(data)
    with pytest.raises(StreamError, match="longer than it says"):
        scan_file(path)
    large = replace(HEADER, height=8192, width=8192)
    claim = pack(large, [b""])[:-5] + bytes([0x80, 0x80, 0x80, 0x80, 1])  # 1 << 28 bytes
    path.write_bytes(claim)
    with path.open("r+b") as file:
        file.truncate(len(claim) + (1 << 28) + 4)
    with pytest.raises(StreamError, match="max_pixels"):
        read_file(path, 512 * 768)
    assert peak_memory() - before < 64 << 20


def test_no_file_is_packed_that_cannot_be_unpacked():
    tiny = replace(HEADER, height=1, width=1)
    unpack(pack(tiny, [bytes(64 * 64 * 64)]))
    with pytest.raises(ValueError, match="64 bytes for each padded pixel"):
        pack(tiny, [bytes(64 * 64 * 64), b"x"])
    with pytest.raises(ValueError, match="side"):
        pack(replace(HEADER, width=MAX_SIDE + 1), STREAMS)


def test_every_prefix_is_refused():
    data = pack(HEADER, STREAMS)
    for length in range(len(data)):
        with pytest.raises(StreamError):
            unpack(data[:length])
