"""Files from strangers: one exception, in words, before anything is spent on them."""

from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from models.coding.container import unpack
from models.errors import StreamError
from tests.fuzz import __main__ as program
from tests.fuzz import cases
from tests.fuzz.damage import put_together, take_apart
from tests.helpers import NAMES, codec, each_model, image, latents_of, make, peak_memory


def sound(name):
    return codec(name).compress(image(64, 64))[0]


def lying(name, **fields):
    """A sound file with other fields and the right checksum."""
    return put_together(replace(take_apart(sound(name)), **fields))


ODD = {"lengths": (3,), "streams": (b"abc",)}
LIES = {
    "other model": (lambda n: sound(NAMES[NAMES.index(n) - 1]), "written with another"),
    "unknown model": (lambda n: lying(n, model=b"\x85Other"), "of Other, this"),
    "other tables": (lambda n: lying(n, digest=bytes(8)), "needs the tables 0000000000000000"),
    "impossible length": (lambda n: lying(n, lengths=(2**34, 3)), "which no image takes"),
    "no streams": (lambda n: lying(n, count=0, lengths=(), streams=()), "streams, not 0"),
    "odd stream": (
        lambda n: lying(n, **{k: v * len(codec(n).streams) for k, v in ODD.items()}),
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
    before = peak_memory()  # a claim of 4 gigapixels in some 60 bytes costs none
    for height, width in ((1, 2**18), (65535, 65535), (1, 2**35 - 1), (2**20, 129)):
        with pytest.raises(StreamError, match="max_pixels|a side has 1 to"):
            model.decompress([lying(name, height=height, width=width)], max_pixels=2**18)
    assert peak_memory() - before < 64 << 20


def test_memory_is_in_proportion_to_the_claimed_pixels():
    """Less than 500 bytes a pixel, of a file of 60 bytes that decodes, or fails in words."""
    name = "CheckerboardAutogressive"
    data = lying(name, height=1024, width=1024, streams=(bytes(4),) * 2, lengths=(4, 4))
    before = peak_memory()
    with suppress(StreamError):
        codec(name).decompress([data])
    assert len(data) < 60 and peak_memory() - before < 500 * 1024**2


@each_model
def test_files_of_a_batch_must_fit_together(name):
    model = codec(name)
    first, second = model.compress(image(64, 64))[0], model.compress(image(64, 65))[0]
    with pytest.raises(StreamError, match="one size"):
        model.decompress([first, second])
    with pytest.raises(StreamError, match="one gain"):
        model.decompress([first, *model.compress(image(64, 64), 0.5)])
    with pytest.raises(StreamError, match="checksum"):
        model.decompress([first, first[:-1] + bytes([first[-1] ^ 1])])
    for files in (b"abc", None, [None], ["text"], []):
        with pytest.raises(StreamError, match="list of complete files|no file"):
            model.decompress(files)


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


def test_a_thousand_damaged_files():
    """Of the four models in turn, with splices between them."""
    report = cases.fuzz([codec(name) for name in NAMES], 1000, seed=1)
    assert not report.failures and report.growth < 64 << 20
    for tally in report.tallies.values():  # damage reaches the decoder, and most of it is seen
        assert tally.cases == 250 and 3 < tally.decoded < 125, tally
    assert len(report.refusals) > 10
    reached = [kind for kind in report.refusals if kind.startswith("A stream is damaged")]
    assert sum(report.refusals[kind] for kind in reached) > 100


class Panic(BaseException):
    """As a native library's panic, which is no Exception."""


OUTCOMES = {
    "panic": Panic("capacity overflow"),
    "index error": IndexError("index 7"),
    "two lines": StreamError("two\nlines"),
    "wrong size": torch.zeros(1, 3, 5, 5),
    "NaN": torch.full((1, 3, 64, 64), torch.nan),
}


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())
def test_whatever_else_happens_is_noticed(outcome, monkeypatch, capsys, tmp_path):
    """And told with the file, whose seed decides it; the command then fails."""
    model, table = codec("Factorized"), tmp_path / "fuzz.csv"
    (_, data), (_, again) = (next(cases.damaged_files([model], seed=3)) for _ in range(2))
    assert data == again
    decompress, real = model.decompress, set(cases.real_files(model))

    def escape(files, max_pixels):
        if files[0] in real:
            return decompress(files, max_pixels=max_pixels)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(program.checkpoint, "load", lambda path: model)
    words = ["--cases", "1", "--seed", "3", "--models", "Factorized", "--out", str(table)]
    assert program.main(words) == 0
    assert "decoded to an image of the declared size" in capsys.readouterr().out
    monkeypatch.setattr(model, "decompress", escape)
    assert program.main(words) == 1
    assert f"(case 0, seed 3, Factorized): {data.hex()}" in capsys.readouterr().err
    assert table.read_text().splitlines()[1].startswith("Factorized,1,0,0,1,")
