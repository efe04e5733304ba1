"""The two sets of photographs that were held out, and how losses on them are brought together."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import models
from benchmarks import compute, held_out
from models.files import csv_text, write_text
from models.presets import OperatingPoint
from training.data import open_dataset
from training.loop import Trainer
from training.loss import RateDistortion


@pytest.fixture
def photographs(tmp_path):
    """60 noisy images in two folders, and links to them in one."""
    noise = np.random.default_rng(0)
    (tmp_path / "flat").mkdir()
    for k in range(60):
        path = tmp_path / "folders" / str(k % 2) / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (256, 256, 3), np.uint8)).save(path)
        (tmp_path / "flat" / path.name).symlink_to(path)
    return tmp_path


def test_the_splits_are_those_of_training_on_the_folders_and_on_one(photographs):
    found = held_out.splits(str(photographs / "folders"))
    for folder in ("folders", "flat"):
        images = open_dataset(photographs / folder, "train", min_side=256)
        rest, out = held_out.held_out(images, 3)
        names = [s.name.rpartition("/")[2] for s in found[rest.fingerprint].sources]
        assert names == [s.name.rpartition("/")[2] for s in out.sources]
    assert len(found) == 2


def test_the_loss_is_that_of_a_validation():
    model = models.build("Factorized", 2, 3).eval()
    model.point = OperatingPoint("Factorized", 0.013, "low", 2, 3)
    model.solve_quantiles()
    crops = list(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))

    trainer = SimpleNamespace(
        held_out=crops, averaged=model, model=model, loss=RateDistortion(0.013, "mse"),
        settings=SimpleNamespace(test_batch_size=2),
        team=SimpleNamespace(device=torch.device("cpu")),
    )  # fmt: skip
    expected = Trainer.validate(trainer)["val_loss"]
    assert held_out.mean_loss(model.eval(), crops) == pytest.approx(expected, rel=1e-6)


def test_losses_on_other_photographs_are_brought_to_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "STATISTICS", tmp_path)
    rows = [
        {"model": model, "lmbda": "0.013", "data_fingerprint": name, "loss": loss}
        for model, one, three in (("Hyperprior", 2.0, 1.5), ("Factorized", 4.0, 1.0))
        for name, loss in ((held_out.ONE_FOLDER, one), (held_out.THREE_FOLDERS, three))
    ]
    write_text(tmp_path / "held_out.csv", csv_text(rows, rows[0]))

    def factor(**told):
        return compute.to_first_photographs(
            {"run_id": "1", "model": "Hyperprior", "lmbda": 0.013, **told}
        )

    assert factor() == factor(data_fingerprint=held_out.THREE_FOLDERS) == 1
    assert factor(data_fingerprint=held_out.ONE_FOLDER) == 0.75
    assert factor(data_fingerprint=held_out.ONE_FOLDER, model="Factorized") == 0.25
    assert factor(data_fingerprint=held_out.ONE_FOLDER, model="Unmeasured") == 0.75
    assert factor(data_fingerprint="others") is None
    assert factor(data_fingerprint=held_out.ONE_FOLDER, lmbda=0.5) is None
