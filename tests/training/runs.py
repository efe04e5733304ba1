"""What the tests of train.py share: flags of tiny runs, and what they leave."""

from __future__ import annotations

from pathlib import Path

import torch

import train
from tests.programs import read_csv
from training.settings import Settings, resolve

STEPS = 8  # of the runs below: two epochs of four
PAUSE = ("--time_limit", "1e-9")  # one step, and the state is saved


def tiny(photographs: Path, folder: Path) -> list[str]:
    text = (
        f"--model_name Factorized --N 8 --M 12 --dataset {photographs} --lmbda 0.013 --epoch 2 "
        f"--steps_per_epoch {STEPS // 2} --batch_size 2 --patch_size 32 --optimizer muon "
        f"--scheduler cosine --ema 0.9 --ste_fraction 0.4 --log_every 2 --no_tensorboard "
        f"--num_workers 1 --threads 1 --gpu_id cpu --runs {folder}/runs --ckpts {folder}/ckpts"
    )
    return text.split()


def settings(*words: str) -> Settings:
    return resolve(train.parser().parse_args(list(words)))


def state(folder: Path, version: str, model: str = "Factorized") -> dict:
    return torch.load(folder / "runs" / model / version / "state.pt", weights_only=True)


def assert_same_weights(a: dict, b: dict) -> None:
    assert a["step"] == b["step"]
    for part in ("model", "averaged"):
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), name


def rows(folder: Path, version: str, model: str = "Factorized") -> list[dict]:
    return read_csv(folder / "runs" / model / version / "curve.csv")
