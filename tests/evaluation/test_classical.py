"""Classical codecs and the figures, on small images and hand-made CSVs."""

import io
import os
import shutil
import stat

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from benchmarks import classical
from benchmarks.__main__ import main
from benchmarks.codecs import Classical, codecs, from_yuv420, to_yuv420
from evaluation.plots import LINES, LOOKS, contact_sheet, rd_figure, style_of
from models.images import write_image
from tests.programs import ROOT, one_line, read_csv

REFERENCE = ROOT / "statistics" / "reference"
COMPARE = ("classical", "--compare", "--resultdir")
PILLOW_CODECS = ("JPEG", "JPEG2000", "WebP", "AVIF")


def photograph(height=64, width=80, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    smooth = 128 + 80 * np.sin(rows / 9)[..., None] * np.cos(columns[..., None] / (7, 11, 13))
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def results(tmp_path):
    """A result folder with the published points and nothing measured."""
    shutil.copytree(REFERENCE, tmp_path / "reference")
    return tmp_path


# Codecs


@pytest.mark.parametrize("name", PILLOW_CODECS)
def test_files_are_real_and_complete(name):
    codec, pixels = codecs()[name], photograph()
    quality = codec.qualities[len(codec.qualities) // 2]
    data = codec.encode(pixels, quality)
    with Image.open(io.BytesIO(data)) as image:  # any reader can open them
        assert image.format == name.upper()
        assert image.size == (80, 64)
    values = classical.measure(codec, quality, pixels)
    assert values["bits"] == 8 * len(data)
    assert_allclose(values["bpp"], 8 * len(data) / (64 * 80))
    assert 15 < values["psnr"] < 60


def test_jpeg_settings_are_those_of_the_published_points():
    """Plain `Image.save(quality=...)`, as CompressAI's benchmark calls Pillow."""
    pixels = photograph()
    for name in ("JPEG", "WebP"):
        plain = io.BytesIO()
        Image.fromarray(pixels).save(plain, format=name, quality=40)
        assert codecs()[name].encode(pixels, 40) == plain.getvalue()


def test_rows_are_means_over_the_images():
    codec = codecs()["JPEG"]
    one = Classical("JPEG", (50,), codec.encode, codec.decode, "settings")
    images = [photograph(64, 80), photograph(48, 48, seed=1)]
    (row,) = classical.measure_all([one], images, "two")
    singles = [classical.measure(codec, 50, pixels) for pixels in images]
    assert tuple(row) == classical.COLUMNS
    for key in ("bits", "bpp", "psnr", "num_pixels"):
        assert_allclose(float(row[key]), np.mean([s[key] for s in singles]), atol=1e-6)
    assert row["ms_ssim"] == ""  # too small for five scales
    assert row["images"] == "2"


@pytest.mark.parametrize("height, width", [(2, 2), (7, 10), (16, 9)])
def test_yuv420_keeps_grey_and_smooth_colour(height, width):
    grey = np.random.default_rng(0).integers(0, 256, (height, width, 1), np.uint8).repeat(3, 2)
    for pixels in (grey, np.full((height, width, 3), (200, 30, 90), np.uint8)):
        data, even_height, even_width = to_yuv420(pixels)
        assert len(data) == 2 * even_height * even_width * 3 // 2
        decoded = from_yuv420(data, even_height, even_width)[:height, :width]
        assert np.abs(decoded.astype(int) - pixels).max() <= 1
    with pytest.raises(ValueError, match="not one 4:2:0 frame"):
        from_yuv420(data[:-2], even_height, even_width)


def test_programs_that_are_not_installed_are_skipped_with_a_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["classical", "--codecs", "VVC", "BPG", "--outdir", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "None of the chosen codecs can run here" in said.err
    assert "Skipping VVC: vvencapp and vvdecapp not found" in said.out
    assert "Skipping BPG: bpgenc and bpgdec not found" in said.out
    assert list(tmp_path.iterdir()) == []


def install(folder, name, body):
    """A stand-in for an external program."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_external_programs_get_files_and_give_files(monkeypatch, tmp_path):
    """Stand-ins that copy the input to the output show that the plumbing is right."""
    copy = "while [ $# -gt 1 ]; do case $1 in {i}) in=$2;; -o) out=$2;; esac; shift; done; {cp}"
    install(tmp_path, "vvencapp", copy.format(i="-i", cp='cp "$in" "$out"'))
    install(tmp_path, "vvdecapp", copy.format(i="-b", cp='cp "$in" "$out"'))
    install(tmp_path, "bpgenc", copy.format(i="-", cp='cp "$1" "$out"'))
    install(tmp_path, "bpgdec", copy.format(i="-", cp='cp "$1" "$out"'))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, least in (("VVC", 30), ("BPG", np.inf)):
        codec = codecs()[name]
        assert codec.missing() == []
        values = classical.measure(codec, 32, photograph(33, 47))
        assert values["psnr"] >= least
        assert values["bits"] > 0
    install(tmp_path, "bpgenc", "echo cannot do this >&2; exit 3")
    with pytest.raises(ValueError, match="bpgenc failed with exit status 3: cannot do this"):
        classical.measure(codecs()["BPG"], 32, photograph())


# Command line and comparison


def test_rows_of_other_codecs_are_kept_and_of_other_images_not_replaced(tmp_path, capsys):
    for name in ("mine", "others"):
        write_image(tmp_path / name / "a.png", photograph())
    words = ["classical", "--outdir", str(tmp_path), "--dataset_path", str(tmp_path / "mine")]
    words.append("--codecs")
    assert main([*words, "WebP"]) == main([*words, "JPEG"]) == 0
    rows = read_csv(tmp_path / "classical.csv")
    assert [row["codec"] for row in rows] == ["JPEG"] * 19 + ["WebP"] * 19
    assert [row["quality"] for row in rows[:19]] == [str(q) for q in range(5, 100, 5)]
    capsys.readouterr()
    words[4] = str(tmp_path / "others")
    assert main([*words, "JPEG"]) == 1
    one_line(capsys, "holds results on mine, not on others")
    assert read_csv(tmp_path / "classical.csv") == rows


def test_agreement_of_the_published_points_with_themselves(results, capsys):
    reference = read_csv(results / "reference" / "kodak_rd.csv")
    published = [row for row in reference if row["codec"] == "JPEG"]
    lines = ["codec,quality,bpp,psnr,ms_ssim"]
    for row in published:
        rate = float(row["bpp"]) * (1.01 if row["point"] == "3" else 1)
        quality = 5 * int(row["point"])
        lines.append(f"JPEG,{quality},{rate},{row['psnr_rgb_db']},{row['ms_ssim_rgb']}")
    (results / "classical.csv").write_text("\n".join(lines) + "\n")
    assert main([*COMPARE, str(results), "--outdir", str(results)]) == 0
    rows = {row["codec"]: row for row in read_csv(results / "classical_agreement.csv")}
    jpeg = rows["JPEG"]
    assert jpeg["matched_points"] == "19"
    assert_allclose(float(jpeg["max_bpp_difference_percent"]), 1, atol=1e-4)
    assert float(jpeg["max_psnr_difference_db"]) == 0
    assert 0 < float(jpeg["bd_rate_percent"]) < 0.5
    assert "no rows for WebP" in rows["WebP"]["reason"]
    assert "matched_points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "classical.csv does not exist"),
        ("", "has no column codec"),
        ("codec,quality,bpp,psnr,ms_ssim\nJPEG,low,1,30,0.9\n", "line 2, column quality: 'low'"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(text, message, results, capsys):
    if text is not None:
        (results / "classical.csv").write_text(text)
    assert main([*COMPARE, str(results), "--outdir", str(results / "out")]) == 1
    one_line(capsys, "classical: ", message)
    assert not (results / "out").exists()


# Figures

CURVES = [
    ("Hyperprior", [0.9, 0.3, 0.6], [0.99, 0.95, 0.97], None),
    ("zoo", [0.3, 0.6, 0.9], [0.94, 0.96, float("nan")], style_of("mbt2018", "zoo")),
]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_figures_are_written_the_same_every_time(tmp_path, suffix):
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    rd_figure(CURVES, "ms_ssim", first, title="Kodak", max_bpp=0.8)
    rd_figure(CURVES, "ms_ssim", second, title="Kodak", max_bpp=0.8)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_figures_refuse_in_words(tmp_path):
    with pytest.raises(ValueError, match="no metric 'vmaf'"):
        rd_figure(CURVES, "vmaf", tmp_path / "a.svg")
    with pytest.raises(ValueError, match="no point to draw"):
        rd_figure([("x", [0.5], [float("nan")], None)], "psnr", tmp_path / "a.svg")
    with pytest.raises(ValueError, match="written as .svg or .png"):
        rd_figure(CURVES, "psnr", tmp_path / "a.gif")
    with pytest.raises(ValueError, match="no source 'hearsay'"):
        style_of("JPEG", "hearsay")
    with pytest.raises(ValueError, match="no image"):
        contact_sheet([], tmp_path / "a.png")
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
