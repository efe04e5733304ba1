"""Small runs of train.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from tests.training.runs import tiny


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Six small images of smooth blotches."""
    folder = tmp_path_factory.mktemp("photographs")
    for k in range(6):
        coarse = np.random.default_rng(k).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((112, 96), Image.BICUBIC).save(folder / f"{k}.png")
    return folder


@pytest.fixture
def run(photographs, tmp_path):
    """Run train.py in this process with tiny defaults; returns the exit code."""

    def start(*extra: str) -> int:
        return train.main([*tiny(photographs, tmp_path), *extra])

    start.folder = tmp_path
    start.flags = tiny(photographs, tmp_path)
    return start
