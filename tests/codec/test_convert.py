"""Weights to and from CompressAI: the same image and likelihoods, in every layout of keys."""

import re

import pytest
import torch
from safetensors.torch import save_file

from evaluation.reference import import_compressai
from models import convert
from models.convert import rename_keys, to_compressai
from models.presets import TWINS
from tests.helpers import CHECKERBOARD, JOINT, M, N, image, make

each_twin = pytest.mark.parametrize("name", TWINS)


def twin(name):
    """CompressAI's model with its own random weights, in eval mode."""
    architectures = import_compressai().zoo.image.model_architectures
    return architectures[TWINS[name].architecture](N, M).eval()


def estimate(model, x):
    with torch.no_grad():
        return model(x)


def assert_same(ours, theirs):
    torch.testing.assert_close(ours["x_hat"], theirs["x_hat"], rtol=0, atol=1e-5)
    assert ours["likelihoods"].keys() == theirs["likelihoods"].keys()
    for key, values in theirs["likelihoods"].items():
        torch.testing.assert_close(ours["likelihoods"][key], values, rtol=0, atol=1e-5)


@each_twin
def test_their_weights_give_their_results_here(name):
    theirs, ours = twin(name), make(name)
    with torch.no_grad():  # their initialisation rounds nearly everything to zero
        theirs.g_a[-1].weight.mul_(60)
    ours.load_state_dict(rename_keys(theirs.state_dict()))
    x = image(64, 128, batch=2)
    assert_same(estimate(ours, x), estimate(theirs, x))


@each_twin
def test_our_weights_give_our_results_there(name):
    theirs, ours = twin(name), make(name)
    theirs.load_state_dict(to_compressai(ours))  # strict: every name and shape
    back = rename_keys(to_compressai(ours))
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in ours.state_dict().items())
    x = image(64, 128, batch=2)
    mine = estimate(ours, x)
    assert_same(mine, estimate(theirs, x))
    assert (mine["likelihoods"]["y"] < 0.5).float().mean() > 0.2  # latents are not all zero


def test_the_checkerboard_takes_the_joint_models_weights():
    """Where the context says nothing, both are the same hyperprior with a mean."""
    theirs, ours = twin(JOINT), make(CHECKERBOARD)
    with torch.no_grad():
        theirs.g_a[-1].weight.mul_(60)
        theirs.context_prediction.weight.zero_()
        theirs.context_prediction.bias.zero_()
    ours.load_state_dict(rename_keys(theirs.state_dict()))
    x = image(64, 128)
    mine, expected = estimate(ours, x), estimate(theirs, x)
    for key, values in expected["likelihoods"].items():
        torch.testing.assert_close(mine["likelihoods"][key], values, rtol=0, atol=1e-5)
    assert ours.freeze().decompress(ours.compress(x)).shape == x.shape


def underscored(state):
    """`_matrix0`, `_bias0`, `_factor0`: up to version 1.1."""
    singular = {"matrices": "matrix", "biases": "bias", "factors": "factor"}
    pattern = re.compile(r"(matrices|biases|factors)\.(\d)$")
    return {pattern.sub(lambda m: f"_{singular[m[1]]}{m[2]}", k): v for k, v in state.items()}


def underscored_lists(state):
    """`_matrices.0`, `_biases.0`, `_factors.0`."""
    return {re.sub(r"(matrices|biases|factors)\.(\d)$", r"_\1.\2", k): v for k, v in state.items()}


LAYOUTS = {
    "present": lambda s: s,
    "data parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "_matrix0": underscored,
    "_matrices.0": underscored_lists,
    "bundle": lambda s: {"epoch": 7, "state_dict": s, "loss": torch.tensor(1.0)},
    "bundle, data parallel, _matrix0": lambda s: {
        "state_dict": {f"module.{k}": v for k, v in underscored(s).items()}
    },
    "bundle, compiled": lambda s: {"model_state_dict": {f"_orig_mod.{k}": v for k, v in s.items()}},
    "without derived tensors": lambda s: {
        k: v for k, v in s.items() if "reparam" not in k and "_bound" not in k and "_cdf" not in k
    },
    "float64": lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
}


@pytest.fixture(scope="module")
def joint():
    """CompressAI's joint model with tables of its own, as zoo files have, and one of ours."""
    theirs = twin(JOINT)
    theirs.update(force=True)
    return theirs.state_dict(), make(JOINT)


@pytest.mark.parametrize("layout", [*LAYOUTS, "safetensors"])
def test_files_in_every_layout_load(joint, layout, tmp_path):
    state, ours = joint
    if layout == "safetensors":
        path = tmp_path / "mbt2018.safetensors"
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        path = tmp_path / f"mbt2018{'.pth' if layout == 'present' else '.pth.tar'}"
        torch.save(LAYOUTS[layout](state), path)
    ours.load_state_dict(convert.load_tensors(path))  # strict
    expected = rename_keys(state)
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
