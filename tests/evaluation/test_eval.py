"""`make eval`, test.py on all models: one table, one figure and one contact sheet."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import bench, photographs
from models import MODELS, checkpoint
from models.images import read_image
from models.presets import short
from tests.programs import LAMBDAS, SecondCodec, load_test_program, one_line, read_csv

program = load_test_program()


@pytest.fixture(autouse=True)
def small_photographs(monkeypatch):
    """Two small ones, and no process for the decoder, whose start takes long."""
    samples = [(f"p{k}", np.full((64, 64, 3), 60 * k, np.uint8)) for k in range(2)]
    monkeypatch.setattr(photographs, "sample_photographs", lambda: samples)
    monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)


@pytest.mark.parametrize("lambdas", [LAMBDAS[:1], LAMBDAS])
def test_every_model_is_shown(ckpts, tmp_path, capsys, lambdas):
    words = ["--model_name", "all", "--device", "cpu", "--json", "--lmbda", *map(str, lambdas)]
    words += ["--ckpt_dir", str(ckpts), "--outdir", str(tmp_path)]
    assert program.main(words) == 0
    lines = capsys.readouterr().out.split("\n\n")[1].splitlines()[1:]
    shown = [tuple(line.split()[:2]) for line in lines]
    assert shown == [(short(name), f"{lmbda:g}") for name in MODELS for lmbda in lambdas]
    for name in MODELS:
        rows = read_csv(tmp_path / "per_image" / f"{name}.csv")
        assert len(rows) == 2 * len(lambdas) and (tmp_path / f"{name}.json").is_file()
        for row in rows:
            file = tmp_path / name / f"lmbda_{row['lmbda']}" / f"{row['image']}.lic"
            assert 8 * file.stat().st_size == int(row["bits"])
    for figure in ("rd_psnr.png", "contact_sheet.png"):
        assert read_image(tmp_path / figure).std() > 5


def test_models_without_checkpoints_are_left_out(ckpts, tmp_path, capsys):
    folder = checkpoint.path_for("Hyperprior", 12, LAMBDAS[0], tmp_path / "ckpts").parent
    folder.parent.mkdir()
    folder.symlink_to(ckpts / "Hyperprior")
    words = ["--model_name", "all", "--outdir", str(tmp_path), "--device", "cpu", "--ckpt_dir"]
    assert program.main([*words, str(folder.parent)]) == 0
    said = capsys.readouterr().out
    assert "Factorized is left out" in said and "Hyperprior, lambda 0.0067" in said
    assert program.main([*words, str(tmp_path / "none")]) == 1
    one_line(capsys, "no checkpoint of any model", "train.py")
