"""CompressAI's models on our test bench, its weights in our models, its plots of our results."""

import json
import runpy
import sys
import urllib.error

import numpy as np
import pytest
import torch

from evaluation import reference, results, zoo
from evaluation.points import imported_point
from evaluation.results import means
from models import checkpoint
from models.coding.container import read_header
from models.errors import UsageError
from models.images import to_uint8
from tests.helpers import M, N, image
from tests.programs import result_row


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
            zoo.ZooCodec(arch, 1, path=path)
    with pytest.raises(checkpoint.CheckpointError, match="does not fit Hyperprior"):
        imported_point(twins["mbt2018"], "Hyperprior", 1, "mse").load()

    def no_network(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    image_zoo = reference.import_compressai().zoo.image
    monkeypatch.setattr(image_zoo, "load_state_dict_from_url", no_network)
    with pytest.raises(UsageError, match=r"could not be downloaded.*https://.*--checkpoint"):
        zoo.ZooCodec(hyper, 3)


def test_json_is_drawn_by_compressai(tmp_path, monkeypatch):
    rows = [result_row(lmbda, bpp=bpp) for lmbda, bpp in ((0.1, 2.0), (0.5, 1.0))]
    path = tmp_path / "ours.json"
    path.write_text(results.compressai_json("ours-mse", "files", means(rows)))
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
