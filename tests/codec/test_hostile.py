"""Files from strangers: one exception, in words, before anything is spent on them."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from models.coding.container import unpack
from models.errors import StreamError
from tests.fuzz import __main__ as program
from tests.fuzz import cases
from tests.fuzz.damage import put_together, take_apart
from tests.helpers import NAMES, codec, image, latents_of, make, peak_memory
from tests.programs import ROOT

each_model = pytest.mark.parametrize("name", NAMES)


def sound(name):
    return codec(name).compress(image(64, 64))[0]


def lying(name, **fields):
    """A sound file with other fields and the right checksum."""
    return put_together(replace(take_apart(sound(name)), **fields))


ODD = {"lengths": (3,), "streams": (b"abc",)}
LIES = {
    "other model": (lambda n: sound(NAMES[NAMES.index(n) - 1]), "written by the model"),
    "unknown model": (lambda n: lying(n, model=b"\x85Other"), "written by the model Other"),
    "other tables": (lambda n: lying(n, digest=bytes(8)), "needs the tables 0000000000000000"),
    "checksum": (lambda n: sound(n)[:-20] + bytes(16) + sound(n)[-4:], "checksum"),
    "impossible size": (lambda n: lying(n, height=65535, width=65535), "65535 x 65535 pixels"),
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


CLAIM = """
import sys
from dataclasses import replace
import torch
torch.set_num_threads(1)
from models.errors import StreamError
from tests.fuzz.damage import put_together, take_apart
from tests.helpers import codec, image, peak_memory
model = codec(sys.argv[1])
fields = take_apart(model.compress(image(64, 64))[0])
model.decompress([put_together(fields)])
streams = tuple(bytes(4) for _ in fields.streams)  # decodes to something, or to a refusal
for side in (512, 1024):
    before = peak_memory()
    claim = replace(fields, height=side, width=side, streams=streams, lengths=(4,) * len(streams))
    data = put_together(claim)
    try:
        model.decompress([data])
    except StreamError:
        pass
    print(len(data), (peak_memory() - before) / side**2)
"""


def test_memory_is_in_proportion_to_the_claimed_pixels():
    command = [sys.executable, "-c", CLAIM, "CheckerboardAutogressive"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        size, bytes_per_pixel = map(float, line.split())
        assert size < 60 and bytes_per_pixel < 500
    assert len(done.stdout.splitlines()) == 2


@each_model
def test_files_of_a_batch_must_fit_together(name):
    model = codec(name)
    first, second = model.compress(image(64, 64))[0], model.compress(image(64, 65))[0]
    with pytest.raises(StreamError, match="one size"):
        model.decompress([first, second])
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


def test_two_thousand_damaged_files():
    """Of the four models in turn, with splices between them."""
    report = cases.fuzz([codec(name) for name in NAMES], 2000, seed=1)
    assert not report.failures and report.cases == 2000 and report.growth < 64 << 20
    for tally in report.tallies.values():  # damage reaches the decoder, and most of it is seen
        assert tally.cases == 500 and 5 < tally.decoded < 250, tally
    assert len(report.refusals) > 10
    reached = [kind for kind in report.refusals if kind.startswith("A stream is damaged")]
    assert sum(report.refusals[kind] for kind in reached) > 200


@each_model
def test_it_takes_files_apart_without_loss(name):
    for data in cases.real_files(codec(name)):
        assert put_together(take_apart(data)) == data


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
def test_whatever_else_happens_is_noticed(outcome, monkeypatch, capsys, tmp_path):
    """And told with the file, whose seed decides it; the command then fails."""
    model = codec("Factorized")
    (_, data), (_, again) = (next(cases.damaged_files([model], seed=3)) for _ in range(2))
    assert data == again
    decompress, real = model.decompress, set(cases.real_files(model))

    def escape(files, max_pixels):
        if files[0] in real:
            return decompress(files, max_pixels=max_pixels)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(model, "decompress", escape)
    monkeypatch.setattr(program.checkpoint, "load", lambda path: model)
    table = tmp_path / "fuzz.csv"
    words = ["--cases", "1", "--seed", "3", "--models", "Factorized", "--out", str(table)]
    assert program.main(words) == 1
    assert f"(case 0, seed 3, Factorized): {data.hex()}" in capsys.readouterr().err
    assert table.read_text().splitlines()[1].startswith("Factorized,1,0,0,1,")


def test_the_command(capsys):
    assert program.main(["--cases", "60", "--seed", "3", "--models", "Factorized"]) == 0
    out, err = capsys.readouterr()
    assert "60/60 cases" in err
    assert "decoded to an image of the declared size" in out
