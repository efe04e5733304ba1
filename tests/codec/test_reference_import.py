"""CompressAI imports and works here, whether or not torchvision's compiled operators load."""

import json
import sys

import pytest
import torch

from evaluation import reference


@pytest.fixture(scope="module")
def compressai():
    return reference.import_compressai()


def test_second_import_returns_the_same_module(compressai):
    declared = list(reference._declarations)
    assert reference.import_compressai() is compressai is sys.modules["compressai"]
    assert reference._declarations == declared


def test_range_coder_round_trip(compressai):
    symbols, indexes = [0, 2, 1, 7, -3], [0, 0, 0, 0, 0]  # 7 and -3 lie outside: escaped
    tables = [[0, 20000, 40000, 60000, 65536]], [5], [0]
    data = compressai.ans.RansEncoder().encode_with_indexes(symbols, indexes, *tables)
    decoded = compressai.ans.RansDecoder().decode_with_indexes(data, indexes, *tables)
    assert decoded == symbols


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018"])
def test_zoo_models_build_and_estimate(compressai, name):
    model = compressai.zoo.models[name](quality=1, pretrained=False).eval()
    assert type(model).__module__.startswith("compressai.models")
    with torch.no_grad():
        out = model(torch.rand(1, 3, 64, 64))
    assert out["x_hat"].shape == (1, 3, 64, 64)
    assert all(torch.isfinite(p).all() for p in out["likelihoods"].values())


def test_small_model_codes(compressai):
    model = compressai.models.ScaleHyperprior(8, 12).eval()
    model.update(force=True)
    stream = model.compress(torch.rand(1, 3, 64, 64))
    out = model.decompress(stream["strings"], stream["shape"])
    assert out["x_hat"].shape == (1, 3, 64, 64)


def test_a_declared_operator_never_computes_something_else(compressai):
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    scores = torch.tensor([0.5, 0.9, 0.1])
    if torchvision.extension._has_ops():
        assert torch.ops.torchvision.nms(boxes, scores, 0.5).tolist() == [1, 2]
    else:
        with pytest.raises(NotImplementedError):
            torch.ops.torchvision.nms(boxes, scores, 0.5)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ImportError("no torchvision")])
def test_other_failures_are_not_hidden(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(reference.importlib, "import_module", fail)
    with pytest.raises(type(error), match=str(error)):
        reference.import_compressai()


def test_a_half_imported_package_is_dropped_and_no_other(monkeypatch):
    for name in ("halfway", "halfway.part", "halfway.part.piece", "halfway_there"):
        monkeypatch.setitem(sys.modules, name, object())
    reference._forget("halfway")
    assert [name for name in sys.modules if name.startswith("halfway")] == ["halfway_there"]


def test_runs_a_compressai_command(compressai, monkeypatch, tmp_path):
    results = tmp_path / "ours.json"
    curve = {"bpp": [0.1, 0.3], "psnr-rgb": [28.0, 31.0], "ms-ssim-rgb": [0.93, 0.97]}
    results.write_text(json.dumps({"name": "ours", "results": curve}))
    monkeypatch.setattr(sys, "argv", ["restored afterwards"])
    figure = tmp_path / "rd.png"
    reference.main(["compressai.utils.plot", "-f", str(results), "-o", str(figure)])
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("module", ["os", "compressai.no_such_module"])
def test_refuses_what_is_not_a_compressai_command(compressai, module, capsys):
    with pytest.raises(SystemExit) as stop:
        reference.main([module])
    assert stop.value.code == 2
    assert module in capsys.readouterr().err
