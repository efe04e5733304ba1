"""Compressed files in Pillow."""

import io

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import models.pillow
from models import checkpoint
from models.coding.container import unpack
from models.errors import CodecError
from models.images import read_image, to_tensor, to_uint8
from tests.helpers import NAMES
from tests.programs import LAMBDAS, SIZES


@pytest.fixture
def photograph(ckpts, photographs, monkeypatch):
    """An image, and checkpoints in the place of the study's."""
    monkeypatch.setattr(checkpoint, "STUDY", ckpts)
    return Image.fromarray(read_image(photographs / "small.png"))


@pytest.mark.parametrize("name", NAMES)
def test_a_round_trip_gives_what_the_codec_gives(name, photograph, ckpts, tmp_path):
    photograph.save(tmp_path / "a.lic", model=name.lower(), lmbda=LAMBDAS[0])
    model = checkpoint.load(checkpoint.find(name, ckpts, lmbda=LAMBDAS[0])[0])
    (data,) = model.compress(to_tensor(np.array(photograph)))
    assert (tmp_path / "a.lic").read_bytes() == data
    with Image.open(tmp_path / "a.lic") as opened:
        assert (opened.format, opened.mode, opened.size) == ("LIC", "RGB", SIZES["small.png"][::-1])
        assert opened.info == {"model": name, "lmbda": pytest.approx(LAMBDAS[0])}
        assert np.array_equal(opened, to_uint8(model.decompress([data])))


def test_the_size_of_a_file_is_chosen_by_bits_per_pixel(photograph):
    def saved(**options):
        photograph.save(file := io.BytesIO(), "LIC", **options)
        return file.getvalue()

    best = saved()
    assert unpack(best)[0].lmbda == pytest.approx(LAMBDAS[1])
    bpp = 8 * min(len(best), len(saved(lmbda=LAMBDAS[0]))) / (70 * 50)
    assert 0.9 * bpp < 8 * len(saved(bpp=bpp)) / (70 * 50) <= bpp


def test_refusals_are_sentences(photograph, tmp_path):
    path = tmp_path / "a.lic"
    for error, words, options in (
        (CodecError, "bpp is a number", {"bpp": -1}),
        (CodecError, "keep one", {"bpp": 1, "lmbda": LAMBDAS[0]}),
        (CodecError, "Lambda 3 is out of reach", {"lmbda": 3}),
        (ValueError, "Unknown model", {"model": "nosuch"}),
    ):
        with pytest.raises(error, match=words):
            photograph.save(path, **options)
        assert not path.exists()
    with pytest.raises(OSError, match=r'mode L as LIC: use image.convert\("RGB"\)'):
        photograph.convert("L").save(path)
    photograph.save(path)
    data = path.read_bytes()
    path.write_bytes(data[:5])
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)
    path.write_bytes(data[:-9])
    with Image.open(path) as opened, pytest.raises(CodecError, match="cut short"):
        opened.load()
    assert models.pillow.FORMAT in Image.SAVE
