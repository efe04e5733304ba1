"""`make eval`: every trained model in one table, one figure and one contact sheet."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import __main__ as program
from evaluation import bench, photographs
from models import MODELS, checkpoint
from models.images import read_image
from models.presets import short
from tests.programs import LAMBDAS, SecondCodec, one_line, read_csv


@pytest.fixture(autouse=True)
def small_photographs(monkeypatch):
    """Four small ones, and no process for the decoder, whose start takes long."""
    samples = [(f"p{k}", np.full((64, 64, 3), 60 * k, np.uint8)) for k in range(4)]
    monkeypatch.setattr(photographs, "sample_photographs", lambda: samples)
    monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)


@pytest.mark.parametrize(("flags", "points", "images"), [([], 1, 2), (["--all"], 2, 4)])
def test_every_model_is_shown(ckpts, tmp_path, capsys, flags, points, images):
    words = ["--ckpt_dir", str(ckpts), "--outdir", str(tmp_path), "--device", "cpu"]
    assert program.main([*words, *flags]) == 0
    said = capsys.readouterr().out
    lines = said.split("\n\n")[1].splitlines()[2:]
    shown = [tuple(line.split()[:2]) for line in lines]
    assert shown == [(short(name), f"{lmbda:g}") for name in MODELS for lmbda in LAMBDAS[:points]]
    folder = tmp_path / ("all" if flags else "short")
    for place in ("rd_psnr.png", "contact_sheet.png", "<Model>/lmbda_<lambda>/", "<Model>.csv"):
        assert f"{folder}/{place}" in said
    for name in MODELS:
        rows = read_csv(folder / "per_image" / f"{name}.csv")
        assert len(rows) == points * images
        for row in rows:
            file = folder / name / f"lmbda_{row['lmbda']}" / f"{row['image']}.lic"
            assert 8 * file.stat().st_size == int(row["bits"])
    for figure in ("rd_psnr.png", "contact_sheet.png"):
        assert read_image(folder / figure).std() > 5
    assert ("--all" in said) == (not flags)


def test_models_without_checkpoints_are_left_out(ckpts, tmp_path, capsys):
    folder = checkpoint.path_for("Hyperprior", 12, LAMBDAS[0], tmp_path / "ckpts").parent
    folder.parent.mkdir()
    folder.symlink_to(ckpts / "Hyperprior")
    words = ["--outdir", str(tmp_path), "--device", "cpu", "--ckpt_dir"]
    assert program.main([*words, str(folder.parent)]) == 0
    said = capsys.readouterr().out
    assert "Factorized is left out" in said and "Hyperprior, lambda 0.0067" in said
    assert program.main([*words, str(tmp_path / "none")]) == 1
    one_line(capsys, "no checkpoint in", "train.py")
