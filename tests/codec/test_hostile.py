"""Files from strangers: one exception, in words, before anything is spent on them."""

import struct
from dataclasses import replace

import pytest
import torch

from models.coding.container import MAX_SIDE, unpack
from models.errors import StreamError
from tests.fuzz import __main__ as program
from tests.fuzz import cases, damage
from tests.fuzz.damage import put_together, take_apart
from tests.helpers import NAMES, codec, image, latents_of, make, peak_memory

each_model = pytest.mark.parametrize("name", NAMES)


def sound(name):
    return codec(name).compress(image(64, 64))[0]


def lying(name, **fields):
    """A sound file with other fields and the right checksum."""
    return put_together(replace(take_apart(sound(name)), **fields))


@each_model
def test_the_fuzzer_takes_files_apart_without_loss(name):
    for data in cases.real_files(codec(name)):
        assert put_together(take_apart(data)) == data


LIES = {
    "not a compressed file": (lambda n: b"\xff\xd8\xff\xe0" + bytes(100), "not a file compressed"),
    "nothing": (lambda n: b"", "not a file compressed"),
    "unknown version": (lambda n: lying(n, version=9), "format version is 9"),
    "other model": (lambda n: sound(NAMES[NAMES.index(n) - 1]), "written by the model"),
    "unknown model": (lambda n: lying(n, model=b"\x85Other"), "written by the model Other"),
    "other tables": (lambda n: lying(n, digest=bytes(8)), "needs the tables 0000000000000000"),
    "truncated": (lambda n: sound(n)[:-7], "cut short"),
    "checksum": (lambda n: sound(n)[:-20] + bytes(16) + sound(n)[-4:], "checksum"),
    "no size": (lambda n: lying(n, height=0), "without pixels"),
    "impossible size": (lambda n: lying(n, height=65535, width=65535), "65535 x 65535 pixels"),
    "thin bomb": (lambda n: lying(n, height=1, width=2**27), f"at most {MAX_SIDE}"),
    "impossible length": (lambda n: lying(n, lengths=(2**34, 3)), "which no image takes"),
    "wrong length": (lambda n: lying(n, lengths=(2**14, 3)), "cut short"),
    "no streams": (lambda n: lying(n, count=0, lengths=(), streams=()), "streams, not 0"),
    "odd stream": (
        lambda n: (
            lying(n, lengths=(3,) * len(codec(n).streams), streams=(b"abc",) * 2)
            if len(codec(n).streams) == 2
            else lying(n, lengths=(3,), streams=(b"abc",))
        ),
        "multiple of 4",
    ),
    "larger size": (lambda n: lying(n, height=640, width=640), None),
    "smaller size": (lambda n: lying(n, height=1, width=1), None),
}


@each_model
@pytest.mark.parametrize("lie,message", LIES.values(), ids=LIES.keys())
def test_every_lie_is_refused_in_a_sentence(name, lie, message):
    data = lie(name)
    try:
        out = codec(name).decompress([data])
    except StreamError as error:
        assert message is None or message in str(error)
        assert str(error).endswith(".") and "\n" not in str(error)
    else:
        assert message is None  # the size is believable, the streams may even suit it
        header, _ = unpack(data)
        assert out.shape == (1, 3, header.height, header.width)


@each_model
def test_max_pixels_is_obeyed(name):
    """Pixels with padding, which cost as much: of a thin image there are up to 64 times as many."""
    model = codec(name)
    data = model.compress(image(20, 30))
    area = {16: 32 * 32, 64: 64 * 64}[model.downsampling]
    assert model.decompress(data, max_pixels=area).shape == (1, 3, 20, 30)
    with pytest.raises(StreamError, match="20 x 30 pixels, padded to .*max_pixels"):
        model.decompress(data, max_pixels=area - 1)
    with pytest.raises(StreamError, match="max_pixels"):
        model.decompress([lying(name, height=1, width=2**18)], max_pixels=2**18)


@each_model
def test_a_small_file_costs_no_memory(name):
    """A claim of 4 gigapixels in some 60 bytes; refused without memory for a single latent."""
    before = peak_memory()
    for height, width in ((65535, 65535), (2**20, 2**20), (1, 2**35 - 1), (2**20, 129)):
        with pytest.raises(StreamError):
            codec(name).decompress([lying(name, height=height, width=width)])
    assert peak_memory() - before < 64 << 20


@each_model
def test_files_of_a_batch_must_fit_together(name):
    model = codec(name)
    first, second = model.compress(image(64, 64))[0], model.compress(image(64, 65))[0]
    with pytest.raises(StreamError, match="one size"):
        model.decompress([first, second])
    with pytest.raises(StreamError, match="checksum"):
        model.decompress([first, first[:-1] + bytes([first[-1] ^ 1])])
    with pytest.raises(StreamError, match="no file"):
        model.decompress([])


@each_model
def test_streams_that_describe_no_image_are_refused(name):
    """Latents so large that the synthesis overflows: no NaN reaches the caller."""
    model = make(name)
    with torch.no_grad():
        for layer in (0, 2, 4, 6):
            model.g_s[layer].weight.mul_(30)
    model.freeze()
    streams = model.encode({k: v * 1e5 for k, v in latents_of(model, 64, 64).items()})
    flat = tuple(stream[0] for stream in streams)
    data = replace(
        take_apart(model.compress(image(64, 64))[0]), streams=flat, lengths=tuple(map(len, flat))
    )
    with pytest.raises(StreamError, match="no image"):
        model.decompress([put_together(data)])


@each_model
def test_a_thousand_damaged_files(name):
    report = cases.fuzz([codec(name)], 1000, seed=1)
    assert report.cases == 1000
    assert 20 < report.images < 500  # damage reaches the decoder, and most of it is seen
    assert len(report.refusals) > 10
    reached = [kind for kind in report.refusals if kind.startswith("A stream is damaged")]
    assert sum(report.refusals[kind] for kind in reached) > 100
    assert report.growth < 64 << 20


def test_splices_between_models():
    assert cases.fuzz([codec(name) for name in NAMES], 400, seed=2).cases == 400


# The fuzzer itself must notice --------------------------------------------------------------


class Panic(BaseException):
    """As a native library's panic, which is no Exception."""


@pytest.mark.parametrize(
    "outcome",
    [
        Panic("capacity overflow"),
        IndexError("index 7"),
        StreamError("two\nlines"),
        torch.zeros(1, 3, 5, 5),
        torch.full((1, 3, 64, 64), float("nan")),
    ],
    ids=["panic", "index error", "two lines", "wrong size", "NaN"],
)
def test_whatever_else_happens_is_noticed(outcome, monkeypatch):
    model = codec("Factorized")

    def decompress(files, max_pixels):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    data = sound("Factorized")
    monkeypatch.setattr(model, "decompress", decompress)
    with pytest.raises(cases.Escaped):
        cases.attempt(model, data)


def test_the_seed_decides_the_cases():
    models = [codec("Factorized")]
    first, again, other = (cases.damaged_files(models, seed) for seed in (1, 1, 2))
    ours = [next(first)[1] for _ in range(20)]
    assert ours == [next(again)[1] for _ in range(20)]
    assert ours != [next(other)[1] for _ in range(20)]


def test_the_command(capsys):
    assert program.main(["--cases", "60", "--seed", "3", "--models", "Factorized"]) == 0
    out, err = capsys.readouterr()
    assert "60/60 cases" in err
    assert "decoded to an image of the declared size" in out
    with pytest.raises(SystemExit):
        program.main(["--models", "Unknown"])


def test_numbers_of_the_format():
    assert damage.varint(0) == b"\x00" and damage.varint(300) == b"\xac\x02"
    assert len(damage.varint(2**35 - 1)) == 5
    assert damage.checksum(b"123456789") == struct.pack("<I", 0xCBF43926)  # CRC-32's check value
