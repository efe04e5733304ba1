"""The plan of the study, with a stand-in for `python` that notes what it is asked to train."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from models.presets import CATALOGUE, OPERATING_POINTS
from tests.programs import ROOT

# Refuses a parent that is not there, then leaves the checkpoint that train.py would.
PYTHON = """#!/usr/bin/env bash
[ "$1" = train.py ] || { echo False; exit; }
while [ $# -gt 0 ]; do
    case $1 in
    --model_name) model=$2 ;; --lmbda) lmbda=$2 ;; --epoch) epochs=$2 ;;
    --ckpts) folder=$2 ;; --init_ckpt) parent=$2 ;;
    esac
    shift
done
[ -e "${parent:-/}" ] || exit 3
mkdir -p "$folder/$model"
touch "$folder/$model/epoch_$((epochs - 1))_lmbda_$lmbda.safetensors"
echo "$folder $model $lmbda" >>"$LOG"
[ "$lmbda" != "${FAILS:-}" ]
"""


@pytest.fixture
def study(tmp_path):
    """Runs the plan; returns its exit code and the stages it trained, in their order."""
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    log = tmp_path / "log"

    def run(*words: str, **more: str) -> tuple[int, list[str]]:
        log.write_text("")
        path = f"{tmp_path}:{os.environ['PATH']}"
        places = {"CKPTS": str(tmp_path / "c"), "RUNS": str(tmp_path / "r"), "LOG": str(log)}
        places |= {"WEIGHTS": str(tmp_path / "w")}
        done = subprocess.run(
            ["bash", "train_study.sh", *words], cwd=ROOT, capture_output=True, text=True,
            timeout=120, env={**os.environ, "PATH": path, "DATA": "photographs", **places, **more},
        )  # fmt: skip
        return done.returncode, log.read_text().splitlines()

    return run


@pytest.mark.parametrize("lanes", ["0", "1"])
def test_every_point_is_trained_once_and_after_its_parent(study, tmp_path, lanes):
    code, stages = study(LANES=lanes)
    assert code == 0 and len(stages) == len(set(stages)) == 4 + 16 + 8  # trunks, points, priors
    last = {name: 249 if entry.context else 199 for name, entry in CATALOGUE.items()}
    points = {
        f"{p.model}/epoch_{last[p.model]}_lmbda_{p.lmbda:g}.safetensors" for p in OPERATING_POINTS
    }
    there = (tmp_path / "c").glob("*/epoch_*")
    assert {p.relative_to(tmp_path / "c").as_posix() for p in there} == points
    assert study(LANES=lanes) == (0, [])  # nothing twice


@pytest.mark.parametrize("lanes", ["0", "1"])
def test_a_failed_stage_ends_the_plan(study, lanes):
    code, stages = study(LANES=lanes, FAILS="0.013")
    assert code != 0
    assert sum(stage.endswith(" 0.013") for stage in stages) == 1 + int(lanes)


FURTHER = {  # part: its stages, each folder, model's first letter and lambda
    "trunk_high": "trunks/192_320 H 0.0483",
    "branches_high": ". H 0.0483, . H 0.025, 192_192 H 0.013, 192_192 H 0.0067",
    "trunk_low": "trunks/128_192 H 0.0483",
    "branches_low": ". H 0.013, . H 0.0067, . F 0.013, . F 0.0067, . F 0.0483, . F 0.025",
    "priors_high": "priors J 0.0483, priors J 0.025, priors C 0.0483, priors C 0.025",
    "priors_low": "priors J 0.013, priors J 0.0067, priors C 0.013, priors C 0.0067",
}


def test_further_begins_with_trained_weights_and_ends_when_the_time_is_up(study, tmp_path):
    for point in OPERATING_POINTS:
        last = 249 if CATALOGUE[point.model].context else 199
        path = tmp_path / "w" / point.model / f"epoch_{last}_lmbda_{point.lmbda:g}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def short(stage: str) -> str:
        folder, model, lmbda = stage.split()
        return f"{Path(folder).relative_to(tmp_path / 'c')} {model[0]} {lmbda}"

    assert study("further", TIME="15") == (0, [])  # less than MARGIN
    for part, expected in FURTHER.items():
        code, stages = study("further", part)
        assert code == 0 and [short(stage) for stage in stages] == expected.split(", ")
    assert study("further") == (0, [])
    assert study("further", "trunk")[0] == study("farther")[0] == 2
