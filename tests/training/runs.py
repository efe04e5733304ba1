"""What the tests of train.py share: flags of tiny runs, and what they leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from tests.programs import ROOT, read_csv

STEPS = 8  # of the runs below: two epochs of four


def tiny(photographs: Path, folder: Path) -> list[str]:
    text = (
        f"--model_name Factorized --N 8 --M 12 --dataset {photographs} --lmbda 0.013 --epoch 2 "
        f"--steps_per_epoch {STEPS // 2} --batch_size 2 --patch_size 32 --optimizer muon "
        f"--scheduler cosine --ema 0.9 --ste_fraction 0.4 --log_every 2 --no_tensorboard "
        f"--num_workers 1 --threads 1 --gpu_id cpu --runs {folder}/runs --ckpts {folder}/ckpts"
    )
    return text.split()


def state(folder: Path, version: str, model: str = "Factorized") -> dict:
    return torch.load(folder / "runs" / model / version / "state.pt", weights_only=True)


def assert_same_weights(a: dict, b: dict) -> None:
    assert a["step"] == b["step"]
    for part in ("model", "averaged"):
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), name


def rows(folder: Path, version: str, model: str = "Factorized") -> list[dict]:
    return read_csv(folder / "runs" / model / version / "curve.csv")


def start_program(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "train.py", *words], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
