"""Small runs of train.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import train
from models.images import to_uint8, write_image
from tests.helpers import image
from tests.training.runs import tiny


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Six small images of smooth blotches."""
    folder = tmp_path_factory.mktemp("photographs")
    for k in range(6):
        write_image(folder / f"{k}.png", to_uint8(image(96, 112, k)))
    return folder


@pytest.fixture
def run(photographs, tmp_path):
    """Run train.py in this process with tiny defaults; returns the exit code."""

    def start(*extra: str) -> int:
        return train.main([*tiny(photographs, tmp_path), *extra])

    start.folder = tmp_path
    start.flags = tiny(photographs, tmp_path)
    return start
