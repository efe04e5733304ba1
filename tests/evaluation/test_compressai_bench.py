"""CompressAI's models on our test bench, its weights in our models, its plots of our results."""

import json
import runpy
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import bench, reference, results, zoo
from evaluation.metrics import psnr
from evaluation.points import imported_point
from evaluation.results import means
from models import checkpoint
from models.coding.container import read_header
from models.convert import to_compressai
from models.errors import UsageError
from models.images import to_uint8
from tests.helpers import M, N, image, make
from tests.programs import SecondCodec, files_in, load_test_program, read_csv, result_row

driver = load_test_program()


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Small models of CompressAI as their training script saves them, by architecture."""
    compressai = reference.import_compressai()
    folder = tmp_path_factory.mktemp("twins")
    torch.manual_seed(0)
    architectures = compressai.zoo.image.model_architectures
    paths = {}
    for arch in zoo.ARCHITECTURES:
        model = architectures[arch](*((N,) if arch.startswith("cheng") else (N, M)))
        paths[arch] = folder / f"{arch}.pth.tar"
        torch.save({"state_dict": model.state_dict()}, paths[arch])
    ours = make("Hyperprior")
    paths["ours"] = folder / "ours.pth.tar"
    torch.save({"state_dict": to_compressai(ours)}, paths["ours"])
    return paths


@pytest.mark.parametrize("arch", zoo.ARCHITECTURES)
def test_every_architecture_of_compressai_codes_real_files(arch, twins):
    (point,) = zoo.points(arch, [2], "mse", twins[arch], "cpu")
    assert point.lmbda == 0.0035
    pixels = to_uint8(image(37, 70))
    writer, reader = point.load(), point.load()
    data = writer.encode(pixels)
    header = read_header(data)
    assert (header.height, header.width, header.lmbda) == (37, 70, 0.0035)
    decoded = reader.decode(data)
    padded = writer._padded(pixels)
    with torch.no_grad():
        coded = writer.model.compress(padded)
        expected = writer.model.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert len(data) > sum(len(string[0]) for string in coded["strings"])
    assert np.abs(decoded.astype(int) - to_uint8(expected[:, :, :37, :70])).max() <= 1
    assert np.isfinite(writer.estimate(pixels))


def test_compressai_through_the_test_program(twins, photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)
    res = tmp_path / "res"
    code = driver.main([
        "--model_name", "compressai:bmshj2018-hyperprior", "--quality", "3", "--checkpoint",
        str(twins["ours"]), "--dataset_path", str(photographs), "--outdir", str(tmp_path / "out"),
        "--resultdir", str(res), "--device", "cpu", "--json",
    ])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    name = "compressai-bmshj2018-hyperprior"
    assert {f"{name}.csv", f"{name}.json"} <= set(files_in(res))
    (mean,) = read_csv(res / f"{name}.csv")
    assert list(mean) == list(results.COLUMNS) and mean["lmbda"] == "0.0067"
    for line in read_csv(res / "per_image" / f"{name}.csv"):
        file = tmp_path / "out" / "lmbda_0.0067" / Path(line["image"]).with_suffix(".lic")
        assert int(line["bits"]) == 8 * file.stat().st_size


def test_the_same_weights_measure_the_same_in_compressai_and_here(twins):
    pixels = to_uint8(image(64, 128))
    here = imported_point(twins["ours"], "Hyperprior", 3, "mse")
    there = zoo.point("bmshj2018-hyperprior", 3, path=twins["ours"])
    assert here.lmbda == there.lmbda
    here, there = here.load(), there.load()
    assert here.estimate(pixels) == pytest.approx(there.estimate(pixels), rel=1e-4)
    quality = [psnr(pixels, c.decode(c.encode(pixels))) for c in (here, there)]
    assert quality[0] == pytest.approx(quality[1], abs=0.01)


def test_weights_that_do_not_fit_or_cannot_be_had_are_explained(twins, monkeypatch, tmp_path):
    half = tmp_path / "half.pth.tar"
    half.write_bytes(twins["mbt2018"].read_bytes()[:5000])
    hyper = "bmshj2018-hyperprior"
    for path, arch, words in (
        (half, "mbt2018", "cut short"),
        (twins["cheng2020-anchor"], "mbt2018", "does not fit mbt2018"),
        (twins["mbt2018"], hyper, "does not fit"),
    ):
        with pytest.raises(checkpoint.CheckpointError, match=words):
            zoo.point(arch, 1, path=path).load()
    with pytest.raises(checkpoint.CheckpointError, match="does not fit Hyperprior"):
        imported_point(twins["mbt2018"], "Hyperprior", 1, "mse").load()

    def no_network(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    image_zoo = reference.import_compressai().zoo.image
    monkeypatch.setattr(image_zoo, "load_state_dict_from_url", no_network)
    with pytest.raises(UsageError, match=r"could not be downloaded.*https://.*--checkpoint"):
        zoo.point(hyper, 3).load()


def test_json_is_drawn_by_compressai(tmp_path, monkeypatch):
    rows = [result_row(lmbda, bpp=bpp) for lmbda, bpp in ((0.1, 2.0), (0.5, 1.0))]
    found = means(rows)
    path = tmp_path / "ours.json"
    path.write_text(results.compressai_json("ours-mse", "files", found))
    read = json.loads(path.read_text())
    assert set(read) == {"name", "description", "results"}
    assert read["results"] == {
        "psnr-rgb": [30.0, 30.0], "ms-ssim-rgb": [0.9, 0.9], "bpp": [1.0, 2.0],
        "encoding_time": [0.1, 0.1], "decoding_time": [0.2, 0.2],
    }  # fmt: skip
    reference.import_compressai()
    for metric in ("psnr", "ms-ssim"):
        figure = tmp_path / f"{metric}.png"
        plot = ["compressai.utils.plot", "-f", str(path), "-m", metric, "-o", str(figure)]
        monkeypatch.setattr(sys, "argv", plot)
        runpy.run_module(plot[0], run_name="__main__")
        assert figure.read_bytes().startswith(b"\x89PNG")
