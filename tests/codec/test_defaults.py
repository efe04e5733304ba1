"""Coding gives the same whatever torch has been set to."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from models import checkpoint, search
from models.presets import OperatingPoint
from tests.helpers import NAMES, M, N, image, make


@contextmanager
def doubles():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "float64": doubles,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.fixture(scope="module", params=NAMES)
def saved(request, tmp_path_factory):
    """A checkpoint, an image, and its plain and searched file and pixels."""
    model = make(request.param)
    model.point = OperatingPoint(request.param, 0.013, "low", N, M)
    path = tmp_path_factory.mktemp("ckpts") / "a.safetensors"
    checkpoint.save(path, model, config={}, provenance={})
    x = image(70, 90)
    return path, x, coded(path, x)


def coded(path, x):
    model = checkpoint.load(path)
    (plain,) = model.compress(x)
    pixels = model.decompress([plain])
    assert pixels.dtype == torch.float32 and not pixels.is_inference()
    return plain, search.compress(model, x, 3), pixels.numpy().tobytes()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_of_torch_change_nothing(setting, saved):
    path, x, expected = saved
    with setting():
        assert coded(path, x.clone()) == expected
    assert torch.get_default_dtype() == torch.float32
