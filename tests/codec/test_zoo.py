"""Weights that cross the border: our checkpoints in CompressAI's eval_model, its zoo files here.

The published figures are checked where the files are:

    COMPRESSAI_ZOO=FOLDER KODAK_DIR=data/kodak python -m pytest -rs tests/codec/test_zoo.py

FOLDER holds files of CompressAI's zoo under their own names (any of them: each is checked
alone). Elsewhere small random models stand in, for which CompressAI gives the figures.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evaluation import bench, reference, zoo
from evaluation.metrics import psnr
from evaluation.photographs import open_photographs
from evaluation.points import ModelCodec, imported_point, trained_point
from models import checkpoint, convert
from models.base import Codec
from models.coding.container import read_header
from models.convert import to_compressai
from models.images import to_uint8, write_image
from models.presets import TWINS
from tests.helpers import N, image, make
from tests.programs import ROOT, SecondCodec, load_test_program, one_line, read_csv

PSNR_TOLERANCE, RATE_TOLERANCE = 0.01, 0.005  # dB, relative
ZOO, KODAK = os.environ.get("COMPRESSAI_ZOO"), os.environ.get("KODAK_DIR")
M = 64  # enough latents for a file that is not all header

each_model = pytest.mark.parametrize("name", TWINS)


def official_files(folder: Path, name: str, metric: str = "mse") -> dict[int, Path]:
    """Those of the zoo's files of a model that are in the folder, by quality."""
    urls = reference.import_compressai().zoo.image.model_urls[TWINS[name].architecture][metric]
    paths = {quality: folder / url.rsplit("/", 1)[1] for quality, url in urls.items()}
    return {quality: path for quality, path in paths.items() if path.is_file()}


def measured_here(path: Path, name: str, quality: int, folder: Path) -> tuple[float, float]:
    """Means over the images of a folder: bpp of the whole files, PSNR in dB."""
    point = imported_point(path, name, quality, "mse")
    writer, reader = point.load(), point.load()
    found = []
    for photograph in open_photographs(folder):
        pixels = photograph.read()
        data = writer.encode(pixels)
        bpp = 8 * len(data) / (photograph.width * photograph.height)
        found.append((bpp, psnr(pixels, reader.decode(data))))
    return tuple(np.mean(found, axis=0))


def published(name: str) -> dict[int, tuple[float, float]]:
    """CompressAI's bpp and PSNR on Kodak, by quality."""
    rows = read_csv(ROOT / "statistics/reference/kodak_rd.csv")
    rows = [row for row in rows if row["codec"] == TWINS[name].architecture]
    return {int(row["point"]): (float(row["bpp"]), float(row["psnr_rgb_db"])) for row in rows}


@pytest.mark.skipif(not (ZOO and KODAK), reason="COMPRESSAI_ZOO and KODAK_DIR name no folders")
@each_model
def test_official_files_have_their_published_figures_here(name):
    files = official_files(Path(ZOO), name)
    if not files:
        pytest.skip(f"{ZOO} holds no file of {TWINS[name].architecture}")
    for quality, path in files.items():
        bpp, quality_db = measured_here(path, name, quality, Path(KODAK))
        expected = published(name)[quality]
        assert quality_db == pytest.approx(expected[1], abs=PSNR_TOLERANCE), path.name
        assert bpp == pytest.approx(expected[0], rel=RATE_TOLERANCE), path.name


@cache
def standin(name: str) -> Codec:
    """A small random model whose scales fit its latents, as training would make them.

    With scales that do not fit, rates differ: CompressAI rounds them up to the next table.
    """
    model = make(name, M=M, lmbda=0.0067)
    with torch.no_grad():
        y = model.analysis(image(192, 192))["y"].transpose(0, 1).flatten(1)  # (M, positions)
        if name != "Factorized":
            head = getattr(model, "entropy_parameters", model.h_s)
            last = [k for k in head if isinstance(k, (nn.Conv2d, nn.ConvTranspose2d))][-1]
            last.weight.mul_(0.02)
            zero_mean = len(last.bias) == M
            last.bias[:M] = y.square().mean(1).sqrt() if zero_mean else y.std(1)
            last.bias[M:] = y.mean(1)[: len(last.bias) - M]
    return model


@pytest.fixture(scope="module")
def standins(tmp_path_factory) -> Path:
    """A folder like that of an owner of the zoo: one file of each model, officially named."""
    folder = tmp_path_factory.mktemp("zoo")
    urls = reference.import_compressai().zoo.image.model_urls
    for name, entry in TWINS.items():
        state = to_compressai(standin(name))
        torch.save(state, folder / urls[entry.architecture]["mse"][3].rsplit("/", 1)[1])
    return folder


@each_model
def test_files_of_compressai_measure_here_as_there(name, standins, tmp_path):
    ((quality, path),) = official_files(standins, name).items()
    assert quality == 3 and official_files(standins, name, "ms-ssim") == {}
    # CompressAI codes the joint model position by position. A Kodak image's header is 0.1 to
    # 0.6 % of the file, of so small an image's it is more.
    small = name.startswith("Joint")
    pixels = to_uint8(image(*((128, 128) if small else (256, 384))))
    write_image(tmp_path / "a.png", pixels)
    there = zoo.ZooCodec(TWINS[name].architecture, quality, path=path)
    coded = there.encode(pixels)
    strings = 8 * sum(read_header(coded).lengths)  # published rates are those of the strings
    slack = 8 * (32 + 10) if small else 0

    bpp, quality_db = measured_here(path, name, quality, tmp_path)
    expected = psnr(pixels, there.decode(coded))
    assert quality_db == pytest.approx(expected, abs=PSNR_TOLERANCE)
    bits = bpp * pixels.shape[0] * pixels.shape[1]
    assert strings > 8000
    assert bits == pytest.approx(strings, rel=RATE_TOLERANCE, abs=slack)


@each_model
def test_eval_model_measures_our_checkpoint_as_we_do(name, tmp_path, capsys, monkeypatch):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.pth"
    checkpoint.save(ours, standin(name), config={}, provenance={})
    assert convert.main(["export", str(ours), str(theirs)]) == 0
    printed = capsys.readouterr().out.splitlines()
    command, on_our_bench = printed[1].split()[2:], printed[3].split()[2:]
    assert command[:3] == ["compressai.utils.eval_model", "checkpoint", "FOLDER"]

    # eval_model pads all around and insists on MS-SSIM: multiples of 64, of at least 161.
    pixels = to_uint8(image(192, 192))
    write_image(tmp_path / "images" / "a.png", pixels)
    command[2] = str(tmp_path / "images")
    monkeypatch.setattr(sys, "argv", command)
    reference.import_compressai()
    runpy.run_module(command[0], run_name="__main__")
    said = json.loads(capsys.readouterr().out)
    assert said["name"] == f"{TWINS[name].architecture}-mse"
    there = {key: value[0] for key, value in said["results"].items()}

    monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)
    places = ["--dataset_path", command[2], "--outdir", str(tmp_path / "out"), "--device", "cpu"]
    assert load_test_program().main([*on_our_bench, *places]) == 0
    (row,) = read_csv(tmp_path / "out" / f"compressai-{TWINS[name].architecture}.csv")
    assert float(row["psnr"]) == pytest.approx(there["psnr-rgb"], abs=PSNR_TOLERANCE)
    assert row["lmbda"] == "0.0067"

    codec = ModelCodec(checkpoint.load(ours), "cpu")
    data = codec.encode(pixels)
    bits = 8 * sum(read_header(data).lengths)
    assert psnr(pixels, codec.decode(data)) == pytest.approx(there["psnr-rgb"], abs=PSNR_TOLERANCE)
    assert bits == pytest.approx(there["bpp"] * 192 * 192, rel=RATE_TOLERANCE, abs=80)


def test_their_weights_become_a_checkpoint_that_codes(standins, tmp_path):
    path = official_files(standins, "Hyperprior")[3]
    target = tmp_path / "imported.safetensors"
    imported = convert.load_compressai(path, "Hyperprior", 3, "mse")
    checkpoint.save(target, imported, config={}, provenance={"imported_from": path.name})
    model = checkpoint.load(target)
    assert (model.point.lmbda, model.N, model.M) == (0.0067, N, M)
    point = trained_point(target, "Hyperprior")
    pixels = to_uint8(image(64, 64))
    assert point.lmbda == 0.0067
    assert point.load().decode(point.load().encode(pixels)).shape == pixels.shape


def test_what_cannot_be_exported_is_one_line(standins, tmp_path, capsys):
    checkerboard = tmp_path / "checkerboard.safetensors"
    model = make("CheckerboardAutogressive")
    checkpoint.save(checkerboard, model, config={}, provenance={})
    theirs, out = str(official_files(standins, "Hyperprior")[3]), str(tmp_path / "out.pth")
    for source, target, message in (
        (str(checkerboard), out, "no architecture for CheckerboardAutogressive"),
        (theirs, out, "is not a checkpoint of this program"),
        (str(tmp_path / "none.safetensors"), out, "There is no checkpoint"),
        (str(checkerboard), str(checkerboard), "over itself"),
        (theirs, str(checkerboard), "checkerboard.safetensors exists"),
        (str(checkpoint.find("Factorized")[0]), str(tmp_path), "Is a directory"),
    ):
        assert convert.main(["export", source, target]) == 1
        one_line(capsys, "convert: ", message)
    assert [path.name for path in tmp_path.iterdir()] == ["checkerboard.safetensors"]
