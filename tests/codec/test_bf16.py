"""The transforms in bf16: each part against its closed form, and files that cross precisions."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import codec as program
from models.base import pad
from models.coding.container import padded, unpack
from models.errors import UsageError
from models.layers import GDN, bf16, deconv
from models.layers.bf16 import (
    GDNInBf16,
    InBf16,
    PixelDeconv,
    computes_in_bf16,
)
from tests.helpers import each_model, image, make, uniform
from tests.programs import files_in, load_test_program, one_line, read_csv


@pytest.fixture
def emulated(monkeypatch):
    """bf16 is allowed on every machine: slow without instructions for it, not different."""
    monkeypatch.setattr(bf16, "computes_in_bf16", lambda device: True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_last_layer_is_the_transposed_convolution(dtype):
    """Of small integers, which bf16 holds exactly, the same to the last bit."""
    layer = deconv(4, 3)
    with torch.no_grad():
        layer.weight.copy_(uniform(1, 4, 3, 5, 5, low=-2.5, high=2.5).round())
        layer.bias.copy_(torch.tensor([0.5, 0.1, -3.0]))
    x = uniform(2, 2, 4, 5, 7, low=-2.5, high=2.5).round()
    expected = layer.double()(x) - layer.bias.view(3, 1, 1)
    found = PixelDeconv(layer, dtype)(x.to(dtype))
    assert found.dtype == torch.float32 and found.shape == (2, 3, 10, 14)
    bias = torch.tensor([0.5, 0.1, -3.0], dtype=torch.float64).view(3, 1, 1)
    # 0.1 - 0.5 is no number of bf16: half a unit in the last place of what lies below 64
    torch.testing.assert_close(found[:, ::2].double(), (expected + bias)[:, ::2], rtol=0, atol=0)
    torch.testing.assert_close(found.double(), expected + bias, rtol=2**-8, atol=2**-9)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_in_bf16_errs_by_little_more_than_its_result_is_rounded(inverse):
    gdn = GDN(24, inverse)
    with torch.no_grad():
        gdn.gamma.add_(uniform(3, 24, 24, low=0, high=0.2))
    x = (uniform(4, 2, 24, 9, 11, low=-4, high=4)).bfloat16()
    expected = copy.deepcopy(gdn).double()(x.double())
    found = GDNInBf16(gdn)(x)
    rounded = (expected.bfloat16().double() - expected).square().mean().sqrt()
    assert (found.double() - expected).square().mean().sqrt() < 1.5 * rounded


def test_a_network_of_ones_own_is_copied_in_bf16():
    """Parts within parts, buffers, and what only looks like the last layer of g_s."""
    inner = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), GDN(8), nn.LeakyReLU())
    network = nn.Sequential(inner, nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 3, 3)).eval()
    before = copy.deepcopy(network.state_dict())
    half = InBf16(network)
    x = image(12, 14)
    y = half(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, network(x), rtol=0.05, atol=0.02)
    assert isinstance(half.network[0][1], GDNInBf16)
    assert isinstance(half.network[2], nn.ConvTranspose2d)
    assert not any(p.requires_grad for p in half.parameters())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]) and value.dtype == before[key].dtype


@each_model
def test_files_cross_precisions(name, emulated):
    """The same symbols, whoever reads; only pixels differ, by a step or two of bf16 (1/128)."""
    model = make(name).freeze()
    x = image(70, 90)
    for writer, reader in (("bf16", "fp32"), ("fp32", "bf16"), ("bf16", "bf16")):
        (data,) = model.use(writer).compress(x)
        header, parts = unpack(data)
        streams = [[part] for part in parts]
        size = padded(header.height, header.width, model.downsampling)
        y_hat = model.decode(streams, *size)
        assert torch.equal(model.use(reader).decode(streams, *size), y_hat)
        decoded = model.decompress([data])
        expected = model.use("fp32").decompress([data])
        assert (decoded - expected).square().mean().sqrt() < 2 / 128
        assert torch.equal(decoded, expected) == (reader == "fp32")


def test_training_is_in_fp32_and_frees_the_copies(emulated):
    model = make("Hyperprior").freeze().use("bf16")
    x = pad(image(64, 64), 64)
    first = model.transform("g_a")
    assert isinstance(first, InBf16) and model.transform("g_a") is first
    model.train()
    assert model.transform("g_a") is model.g_a
    model(x)["x_hat"].sum().backward()
    with torch.no_grad():
        model.g_a[0].weight.mul_(2)
    again = model.freeze().transform("g_a")
    assert again is not first
    assert torch.equal(again.network[0].weight, 2 * first.network[0].weight)


def test_the_device_decides(monkeypatch, ckpts, photographs, tmp_path, capsys):
    monkeypatch.setattr(bf16, "computes_in_bf16", lambda device: False)
    model = make("Factorized")
    assert model.use("fp32") is model
    with pytest.raises(UsageError, match="fp32 or bf16, not 'fp16'"):
        model.use("fp16")
    with pytest.raises(UsageError, match="no bf16 instructions"):
        model.use("bf16")
    source, flags = str(photographs / "small.png"), ["--precision", "bf16"]
    words = ["compress", source, str(tmp_path / "a.lic"), "--ckpt_dir", str(ckpts), *flags]
    assert program.main([*words, "--device", "cpu"]) == 1
    one_line(capsys, "no bf16 instructions")
    words = ["--dataset_path", source, "--ckpt_dir", str(ckpts), "--outdir", str(tmp_path), *flags]
    assert load_test_program().main([*words, "--device", "cpu"]) == 1
    one_line(capsys, "no bf16 instructions")
    assert not files_in(tmp_path)


@pytest.mark.skipif(
    not computes_in_bf16(torch.device("cpu")), reason="the CPU has no bf16 instructions"
)
def test_the_programs_code_in_bf16(ckpts, photographs, tmp_path, capsys):
    """codec.py writes and reads; test.py, decoder process and all, files results apart."""
    file, out = tmp_path / "a.lic", tmp_path / "a.png"
    common = ["--ckpt_dir", str(ckpts), "--precision", "bf16"]
    assert program.main(["compress", str(photographs / "small.png"), str(file), *common]) == 0
    assert program.main(["decompress", str(file), str(out), *common]) == 0
    words = ["--model_name", "Hyperprior", "--dataset_path", str(photographs), "--lmbda", "0.0067"]
    assert load_test_program().main([*words, *common, "--outdir", str(tmp_path / "tested")]) == 0
    (row,) = read_csv(tmp_path / "tested" / "Hyperprior-bf16.csv")
    assert float(row["bpp"]) > 0
    assert load_test_program().main(["--model_name", "compressai:mbt2018", *common[2:]]) == 1
    one_line(capsys, "drop --precision")
