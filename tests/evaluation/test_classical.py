"""Classical codecs and the figures, on small images and hand-made CSVs."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from benchmarks import classical
from benchmarks.__main__ import main
from benchmarks.classical import codecs, decode
from evaluation.plots import LINES, LOOKS, contact_sheet, rd_figure, style_of
from models.images import write_image
from tests.programs import one_line, read_csv


def photograph(height, width, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    smooth = 128 + 80 * np.sin(rows / 9)[..., None] * np.cos(columns[..., None] / (7, 11, 13))
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


# Codecs


@pytest.mark.parametrize("name", codecs())
def test_files_are_real_and_complete(name):
    codec, pixels = codecs()[name], photograph(64, 80)
    quality = codec.qualities[len(codec.qualities) // 2]
    data = codec.encode(pixels, quality)
    with Image.open(io.BytesIO(data)) as image:  # any reader can open them
        assert image.format == name.upper() and image.size == (80, 64)
    assert decode(data).shape == pixels.shape
    values = classical.measure(codec, quality, pixels)
    assert values["bits"] == 8 * len(data) and 15 < values["psnr"] < 60
    assert_allclose(values["bpp"], 8 * len(data) / (64 * 80))
    if name in ("JPEG", "WebP"):  # as CompressAI's benchmark calls Pillow
        plain = io.BytesIO()
        Image.fromarray(pixels).save(plain, format=name, quality=quality)
        assert data == plain.getvalue()


def test_rows_are_means_over_the_images():
    codec, images = codecs()["JPEG"], [photograph(64, 80), photograph(48, 48, seed=1)]
    row = classical.mean_row(codec, 50, images, "two")
    singles = [classical.measure(codec, 50, pixels) for pixels in images]
    for key in ("bits", "bpp", "psnr", "num_pixels"):
        assert_allclose(float(row[key]), np.mean([s[key] for s in singles]), atol=1e-6)
    assert row["ms_ssim"] == ""  # too small for five scales
    assert row["images"] == "2"


def test_every_codec_and_quality_has_a_row_and_other_images_replace_none(
    tmp_path, monkeypatch, capsys
):
    for name in ("mine", "others"):
        write_image(tmp_path / name / "a.png", photograph(64, 80))
    fewer = {
        name: replace(codec, qualities=codec.qualities[:2]) for name, codec in codecs().items()
    }
    monkeypatch.setattr(classical, "codecs", lambda: fewer)
    words = ["classical", "--outdir", str(tmp_path), "--dataset_path"]
    assert main([*words, str(tmp_path / "mine")]) == 0
    rows = read_csv(tmp_path / "classical.csv")
    expected = [(name, str(q)) for name, codec in fewer.items() for q in codec.qualities]
    assert [(row["codec"], row["quality"]) for row in rows] == expected
    capsys.readouterr()
    assert main([*words, str(tmp_path / "others")]) == 1
    one_line(capsys, "holds results on mine, not on others")
    assert read_csv(tmp_path / "classical.csv") == rows


# Figures

CURVES = [
    ("Hyperprior", [0.9, 0.3, 0.6], [0.99, 0.95, 0.97], style_of("Hyperprior")),
    ("zoo", [0.3, 0.6, 0.9], [0.94, 0.96, float("nan")], style_of("mbt2018", "zoo")),
]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_figures_are_written_the_same_every_time(tmp_path, suffix):
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        rd_figure(CURVES, "ms_ssim", path, title="Kodak", max_bpp=0.8)
    first, second = (path.read_bytes() for path in paths)
    assert first == second and first.startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")


def test_a_figure_without_a_point_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no point to draw"):
        rd_figure([("x", [0.5], [float("nan")], {})], "psnr", tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_codec_has_one_colour_whoever_drew_its_curve():
    names = ("Hyperprior", "bmshj2018-hyperprior", "paper-bmshj2018-hyperprior")
    assert len({style_of(name)["color"] for name in names}) == 1
    assert len({style_of("Hyperprior", source)["color"] for source in LINES}) == 1
    models = list(LOOKS)[:4]
    assert len({LOOKS[name][0] for name in models}) == len({LOOKS[name][1] for name in models}) == 4
    assert style_of("my own") == style_of("my own")


def test_the_contact_sheet_shows_the_pixels(tmp_path):
    image = photograph(40, 300)
    path = tmp_path / "sheet.png"
    contact_sheet([[("original", image), ("JPEG\n0.5 bpp", image)], [("wide", image)]], path)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[1] == 2 * 300 + 3 * 12
    tops = range(sheet.shape[0] - 40)
    untouched = [y for y in tops if np.array_equal(sheet[y : y + 40, 12:312], image)]
    assert len(untouched) == 2  # one in each row
