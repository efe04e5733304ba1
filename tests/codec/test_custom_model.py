"""docs/custom_model.md: its model trains, codes and plots with the commands printed there."""

import importlib
import re
import shlex
import sys

import pytest
import torch

import codec
import train
from evaluation import bench
from models import checkpoint
from models.datasets import sample_photographs
from models.images import read_image, write_image
from models.layers import AtGain
from tests.helpers import image, make
from tests.programs import ROOT, SecondCodec, load_test_program, read_csv

PAGE = (ROOT / "docs" / "custom_model.md").read_text(encoding="utf-8")
NAME = "MeanScaleHyperprior"
PROGRAMS = {"train.py": train.main, "codec.py": codec.main, "test.py": load_test_program().main}
TINY = "--N 8 --M 12 --epoch 1 --steps_per_epoch 2 --batch_size 2 --patch_size 64 --no_tensorboard"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


(COMPARISON,) = blocks("python")
(COMMANDS,) = blocks("bash")
MODEL = (ROOT / "docs" / "mean_scale.py").read_text(encoding="utf-8")


@pytest.fixture
def my_model(tmp_path, monkeypatch, registry_restored):
    """A folder to work in that holds my_model.py."""
    (tmp_path / "my_model.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_model", None)


def run(commands: str, replaced: dict[str, str]) -> None:
    """Execute lines of NAME="words" and `python PROGRAM ...`, in this process."""
    variables = {}
    for line in commands.splitlines():
        if assignment := re.fullmatch(r'(\w+)="(.*)"', line):
            name, value = assignment.groups()
            variables[name] = replaced.get(name, value)
            continue
        words = shlex.split(re.sub(r"\$(\w+)", lambda m: variables[m[1]], line))
        assert words[0] == "python"
        assert PROGRAMS[words[1]](words[2:]) == 0, line


def test_the_page_trains_codes_and_plots(my_model, monkeypatch):
    def cropped():
        return [(name, pixels[:170, 100:270]) for name, pixels in sample_photographs()[:1]]

    # To be quick: a small photograph, and a decoder process for one of the two lambdas.
    monkeypatch.setattr("evaluation.photographs.sample_photographs", cropped)
    decoders = iter((bench.DecoderProcess, SecondCodec))
    monkeypatch.setattr(bench, "DecoderProcess", lambda point: next(decoders)(point))
    write_image(my_model / "photo.png", cropped()[0][1])
    run(COMMANDS, {"SIZE": TINY})

    paths = checkpoint.find(NAME, "my_ckpts")
    assert [checkpoint.read_metadata(path)["lmbda"] for path in paths] == [0.0067, 0.0483]
    folder = my_model / "outputs" / NAME
    rows = read_csv(folder / f"{NAME}.csv")
    assert [float(row["lmbda"]) for row in rows] == [0.0067, 0.0483]
    for row in read_csv(folder / "per_image" / f"{NAME}.csv"):
        file = folder / f"lmbda_{row['lmbda']}" / f"{row['image']}.lic"
        assert int(row["bits"]) == 8 * file.stat().st_size
    assert (folder / "rd_psnr.png").stat().st_size > 10_000

    data = (my_model / "photo.lic").read_bytes()
    model = checkpoint.load(paths[-1])
    (decoded,) = model.decompress([data])
    expected = (decoded * 255).round().byte().permute(1, 2, 0).numpy()
    assert (read_image(my_model / "decoded.png") == expected).all()
    assert expected.shape == (170, 170, 3)

    exec(compile(COMPARISON, "docs/custom_model.md", "exec"), {})
    assert (my_model / "outputs" / "comparison.png").stat().st_size > 10_000


@pytest.mark.parametrize("gain", [1.0, 0.6])
def test_its_files_hold_its_latents_and_cost_what_forward_says(my_model, gain):
    """With weights that give lively latents, which two steps of training do not."""
    importlib.import_module("my_model")
    model = make(NAME, 3)
    with torch.no_grad():  # scales that suit the latents, none below the first threshold
        model.h_s[-1].weight.mul_(0.2)
        model.h_s[-1].bias[: model.M].copy_(torch.linspace(2, 6, model.M))
    model.freeze()
    x = image(128, 192, seed=1)
    latents = model.analysis(x)
    streams = model.encode(latents, gain)
    y_hat = model.decode(streams, 128, 192, gain)
    # Rounded around means, in units of 1/64: half a step away at most.
    assert (y_hat - latents["y"]).abs().max() <= 0.5 / gain + 1 / 32
    assert len(y_hat.unique()) > 50
    expected, _ = model.likelihoods(latents, AtGain("round", gain))
    # By float means, which may round otherwise.
    assert ((y_hat - expected).abs() <= 1 / 32).float().mean() > 0.97
    decoded = model.decompress(model.compress(x, gain))
    assert torch.equal(decoded, model.synthesis(y_hat).clamp(0, 1))
    for name, (stream,) in zip(model.streams, streams, strict=True):
        estimate = -model(x, "round", gain)["likelihoods"][name].double().log2().sum().item()
        assert 8 * len(stream) == pytest.approx(estimate, rel=0.005, abs=64)  # the last word
