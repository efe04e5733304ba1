"""Names of models and the operating points of the study."""

import shutil

import pytest

import models
from models import checkpoint
from models.errors import CheckpointError
from models.factorized import Factorized
from models.presets import OPERATING_POINTS, points, zoo_point
from tests.helpers import CHECKERBOARD, JOINT, NAMES, M, N, image

ALIASES = {
    "FactorizedPrior": "Factorized",
    "ScaleHyperprior": "Hyperprior",
    "jointautoregressive": JOINT,
    "Joint": JOINT,
    "Checkerboard": CHECKERBOARD,
    "CheckerboardAutoregressive": CHECKERBOARD,
}


def test_names():
    for alias, name in [*ALIASES.items(), *zip(NAMES, NAMES, strict=True)]:
        assert models.canonical_name(alias) == models.canonical_name(alias.upper()) == name


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=", ".join(NAMES)):
        models.build("Hyperpriors", N, M)
    with pytest.raises(ValueError, match="at least 1"):
        models.build("Hyperprior", 0, 12)


def test_a_name_that_is_taken_is_refused(registry_restored):
    with pytest.raises(ValueError, match="taken"):
        models.register(type("Other", (Factorized,), {}), "Factorized")


def test_operating_points():
    assert len(OPERATING_POINTS) == 16
    for name in NAMES:
        assert [p.lmbda for p in points(name)] == [0.0067, 0.013, 0.025, 0.0483]
        assert [p.code_rate for p in points(name)] == ["low", "low", "high", "high"]
        assert {(p.N, p.M) for p in points(name, "high")} == {(192, 320)}
    assert {(p.N, p.M) for p in points("Hyperprior", "low")} == {(128, 192)}
    assert {(p.N, p.M) for p in points(JOINT, "low")} == {(192, 192)}
    for arguments in (("Hyperprior", 9), ("Mine", 1)):
        with pytest.raises(ValueError):
            zoo_point(*arguments)


def test_a_trained_codec_is_loaded_by_its_name(ckpts, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = models.load("hyperprior", root=ckpts)
    assert not model.training and model.frozen
    best, last = 0.0483, 12
    assert (model.point.lmbda, model.metadata["epoch"]) == (best, last)
    assert models.load("ScaleHyperprior", lmbda=0.0483, epoch=3, root=ckpts).metadata["epoch"] == 3
    study = models.load("Hyperprior", lmbda=0.013)  # from another folder
    assert study.point in points("Hyperprior", "low") and study.point.lmbda == 0.013
    x = image(40, 70)
    assert study.decompress(study.compress(x)).shape == x.shape


MISSING = (
    ({"name": "Nope"}, "Unknown model 'Nope'; choose one of: Factorized"),
    ({"name": "Factorized", "lmbda": 0.5}, r"with lambda 0.5 \(there are lambda 0.0067, 0.0483\)"),
    ({"name": "Factorized", "epoch": 4}, "no checkpoint of epoch 4.*train.py --model_name Fact"),
    (
        {"name": "Hyperprior", "root": "nowhere"},
        "nowhere/Hyperprior holds no checkpoint: the study.s are in ckpts/ of a clone",
    ),
)


@pytest.mark.parametrize("words,message", MISSING)
def test_a_codec_that_is_not_there_is_told_in_a_sentence(words, message, ckpts):
    with pytest.raises(CheckpointError, match=message):
        models.load(**{"root": ckpts, **words})


def test_another_models_checkpoint_under_its_name_is_refused(ckpts, tmp_path):
    path = checkpoint.path_for("Hyperprior", 1, 0.5, tmp_path)
    right = checkpoint.find("Hyperprior", ckpts)[0]
    path.parent.mkdir()
    shutil.copy(right, path.parent)
    shutil.copy(checkpoint.find("Factorized", ckpts)[0], path)
    with pytest.raises(CheckpointError, match="holds a Factorized, not a Hyperprior"):
        models.load("Hyperprior", root=tmp_path)
    for lambdas in ([], [0.0067, 0.02], [0.0067, 0.5]):
        with pytest.raises(CheckpointError, match="holds a Factorized"):
            checkpoint.by_lambda("Hyperprior", tmp_path, lambdas=lambdas)
    (own,) = checkpoint.by_lambda("Hyperprior", tmp_path, lambdas=[0.0067]).values()
    assert own["file"] == str(path.parent / right.name)
