"""Checkpoints: what is written comes back and codes the same; anything else is refused."""

import subprocess
import sys

import pytest
import torch

from models import checkpoint, registry
from models.errors import CheckpointError
from models.presets import OperatingPoint
from tests.helpers import NAMES, M, N, each_model, image, latents_of, make
from tests.programs import ROOT

CONFIG, PROVENANCE = {"lmbda": 0.013, "seed": 3}, {"steps": 1000, "parent": None}


def save(path, name, seed=0):
    made = make(name, seed)
    checkpoint.save(path, made, config=CONFIG, provenance=PROVENANCE)
    return made


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of each model, by name; tests copy before they damage."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {name: folder / name / "epoch_4_lmbda_0.013.safetensors" for name in NAMES}
    for name, path in paths.items():
        save(path, name)
    return paths


# What comes back ------------------------------------------------------------------------


@each_model
def test_a_checkpoint_codes_the_same_wherever_it_is_loaded(name, saved):
    first, second = (checkpoint.load(saved[name]) for _ in range(2))
    assert not first.training
    assert first.digest == second.digest == checkpoint.read_metadata(saved[name])["digest"]
    x = image(64, 100)
    files = first.compress(x)
    assert files == second.compress(x)
    assert torch.equal(first.decompress(files), second.decompress(files))
    latents = latents_of(first, 64, 128)
    assert first.encode(latents) == second.encode(latents)


@each_model
def test_weights_come_back_in_half_precision(name, saved):
    made, loaded = make(name), checkpoint.load(saved[name])
    for key, value in made.state_dict().items():
        expected = value.half().float() if value.ndim in (2, 4) else value
        torch.testing.assert_close(loaded.state_dict()[key], expected, rtol=1e-5, atol=1e-6)
    x = image(64, 64)
    with torch.no_grad():
        before, after = made.g_a(x), loaded.g_a(x)
    assert (before - after).abs().max() < 0.02 * before.abs().max()


def test_operating_point_and_metadata_come_back(saved):
    name = "Hyperprior"
    loaded = checkpoint.load(saved[name])
    assert loaded.point == OperatingPoint(name, 0.013, "low", N, M, "mse")
    metadata = checkpoint.read_metadata(saved[name])
    assert metadata == loaded.metadata
    assert metadata["config"] == CONFIG and metadata["provenance"] == PROVENANCE
    wanted = {"model": name, "N": N, "M": M, "lmbda": 0.013, "metric": "mse", "epoch": 4}
    assert wanted.items() <= metadata.items()


def test_saving_leaves_the_model_as_it_was(tmp_path):
    made = make("Hyperprior").train()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    checkpoint.save(tmp_path / "a.safetensors", made, config={}, provenance={})
    assert made.training
    with pytest.raises(RuntimeError, match="freeze"):
        _ = made.frozen
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_saving_solves_the_quantiles(tmp_path):
    made = make("Factorized")
    with torch.no_grad():
        made.entropy_bottleneck.quantiles.zero_()
    checkpoint.save(tmp_path / "a.safetensors", made, config={}, provenance={})
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    torch.testing.assert_close(
        loaded.entropy_bottleneck.quantiles, make("Factorized").entropy_bottleneck.quantiles
    )


def test_a_model_that_computes_while_it_is_built_is_loaded(saved, monkeypatch):
    """One's own may do what tensors without data cannot."""
    monkeypatch.setattr(checkpoint, "WIDEST", 1)

    def build(name, *sizes):
        torch.zeros(1).item()
        return registered(name, *sizes)

    registered = registry.build
    monkeypatch.setattr(registry, "build", build)
    monkeypatch.setattr(checkpoint, "CHANNELS", {})
    assert checkpoint.load(saved["Factorized"]).frozen


def test_loading_does_not_import_the_compiler(saved):
    """Arithmetic on tensors without data does, which takes seconds in each process."""
    script = """
import sys
from models import checkpoint
checkpoint.load(sys.argv[1])
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    command = [sys.executable, "-c", script, str(saved["Hyperprior"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@each_model
@pytest.mark.parametrize("value", [float("nan"), 1e6])  # 1e6 is infinite in fp16
def test_diverged_weights_are_not_saved(name, value, tmp_path):
    made = make(name)
    with torch.no_grad():
        made.g_s[0].weight.view(-1)[0] = value
    with pytest.raises(CheckpointError, match="g_s.0.weight"):
        checkpoint.save(tmp_path / "a.safetensors", made, config={}, provenance={})
    assert not any(tmp_path.iterdir())


# Finding ----------------------------------------------------------------------------------


def test_find(tmp_path):
    folder = tmp_path / "Hyperprior"
    folder.mkdir()
    for name in (
        "epoch_9_lmbda_0.013",
        "epoch_10_lmbda_0.013",
        "epoch_9_lmbda_0.0067",
        "epoch_3_lmbda_0.0483",
        "epoch_x_lmbda_0.0483",
        "epoch_5_lmbda_1.2.3",
        "epoch_5_lmbda_-",
    ):
        (folder / f"{name}.safetensors").touch()

    def names(**options):
        return [p.name[:-12] for p in checkpoint.find("hyperprior", tmp_path, **options)]

    newest = ["epoch_9_lmbda_0.0067", "epoch_10_lmbda_0.013", "epoch_3_lmbda_0.0483"]
    assert names() == newest
    assert names(epoch=9) == ["epoch_9_lmbda_0.0067", "epoch_9_lmbda_0.013"]
    assert names(lmbda=0.013) == ["epoch_10_lmbda_0.013"]
    assert names(lmbda=0.013, epoch=9) == ["epoch_9_lmbda_0.013"]
    for options in ({"epoch": 77}, {"lmbda": 0.5}, {"lmbda": 0.0483, "epoch": 9}):
        with pytest.raises(CheckpointError, match="train.py --model_name Hyperprior"):
            names(**options)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.find("Factorized", tmp_path)


@pytest.mark.parametrize(
    "lmbda,text",
    [(0.01234567, "0.01234567"), (0.013, "0.013"), (1e-7, "1e-07"), (1e6, "1e+06"),
     (123456789.0, "123456789.0"), (1 / 3, "0.3333333333333333")],
)  # fmt: skip
def test_a_name_has_the_fewest_digits_that_find_its_lambda(lmbda, text, tmp_path):
    paths = [checkpoint.path_for("checkerboard", 3, v, tmp_path) for v in (lmbda, lmbda * 1.00001)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    name = f"epoch_3_lmbda_{text}.safetensors"
    assert paths[0] == tmp_path / "CheckerboardAutogressive" / name
    assert checkpoint.find("Checkerboard", tmp_path, lmbda=lmbda) == paths[:1]
    assert checkpoint.find("Checkerboard", tmp_path) == paths
