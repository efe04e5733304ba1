"""Folders of photographs, and those of scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

from models.datasets import SAMPLES, list_images, sample_photographs
from models.errors import ImageError


def test_a_folder_is_listed_in_natural_order(tmp_path):
    (tmp_path / "b").mkdir()
    pictures = ("img10.png", "img2.JPG", "img3.jfif", "img4.jpe", "b/1.webp")
    for name in (*pictures, "notes.txt", ".hidden.png", "a.png.part"):
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    listed = ["img2.JPG", "img3.jfif", "img4.jpe", "img10.png"]
    assert [p.name for p in list_images(tmp_path)] == listed
    names = [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path, recursive=True)]
    assert names == ["b/1.webp", *listed]


def test_a_folder_without_images_is_refused_in_words(tmp_path):
    with pytest.raises(ImageError, match="There is no image in"):
        list_images(tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageError, match="is not a folder"):
        list_images(tmp_path / "a.png")


def test_the_sample_photographs_need_no_download(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    samples = sample_photographs()
    assert [name for name, _ in samples] == list(SAMPLES)
    for _, pixels in samples:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and min(pixels.shape[:2]) >= 256
