"""Runs that are interrupted, or meet trouble, and go on."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from models import checkpoint
from models.errors import TrainingError
from tests.programs import ROOT, one_line
from tests.training.runs import STEPS, assert_same_weights, rows, state
from training.crops import RandomCrops
from training.feed import Prefetch
from training.run import Run
from training.settings import resolve


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_time_limit_and_resume_end_with_the_same_weights(run, optimizer, capsys):
    words = ("--optimizer", optimizer)
    assert run("--exp_version", "whole", *words) == 0
    cut = ("--exp_version", "cut", "--overwrite", *words)
    assert run(*cut, "--time_limit", "1e-9") == 0
    assert "time is up after step 1 of 8" in capsys.readouterr().out
    assert state(run.folder, "cut")["step"] == 1
    assert run(*cut, "--time_limit", "1e-9", "--resume") == 0
    assert run(*cut, "--resume") == 0
    assert_same_weights(state(run.folder, "whole"), state(run.folder, "cut"))
    whole, pieces = rows(run.folder, "whole"), rows(run.folder, "cut")
    for a, b in zip(whole, pieces, strict=True):
        assert {**a, "seconds": ""} == {**b, "seconds": ""}
    # Finished: resuming once more changes nothing.
    before = checkpoint.find("Factorized", run.folder / "ckpts")[0].read_bytes()
    assert run(*cut, "--resume") == 0
    (path,) = checkpoint.find("Factorized", run.folder / "ckpts")
    assert path.read_bytes() == before
    capsys.readouterr()
    assert run(*cut, "--epoch", "4", "--resume") == 1  # a new run trains it further
    one_line(capsys, "--epoch was 2, is now 4", f"--init_ckpt {path}")


def test_resume_without_a_state_starts_and_without_a_name_finds(run, capsys):
    assert run("--exp_version", "new", "--resume", "--time_limit", "1e-9") == 0
    assert "starting from the beginning" in capsys.readouterr().out
    assert run("--resume") == 0
    assert "Resuming after step 1" in capsys.readouterr().out
    assert run("--resume", "--lmbda", "0.0067") == 1
    assert "--lmbda was 0.013, is now 0.0067" in capsys.readouterr().err
    assert run("--resume", "--exp_version", "new", "--seed", "5") == 1
    assert "--seed was 0, is now 5" in capsys.readouterr().err


def test_kill_9_at_any_moment_leaves_whole_files(run):
    """Killed again and again, each time a little later; then the same as uninterrupted."""
    assert run("--exp_version", "whole", "--check_time", "1") == 0
    words = [*run.flags, "--exp_version", "cut", "--check_time", "1", "--overwrite", "--resume"]
    command = [sys.executable, "train.py", *words, "--save_minutes", "0"]
    folder = run.folder / "runs/Factorized/cut"
    rng = random.Random(5)
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:  # until it trains
            if line.startswith(("Run:", "Resuming")):
                break
        time.sleep(rng.uniform(0.0, 0.4))
        process.kill()
        process.communicate()
        if (folder / "state.pt").exists():
            assert 1 <= state(run.folder, "cut")["step"] <= STEPS
        for path in (run.folder / "ckpts").rglob("*.safetensors"):
            checkpoint.load(path)
    assert run("--exp_version", "cut", "--check_time", "1", "--overwrite", "--resume") == 0
    assert_same_weights(state(run.folder, "whole"), state(run.folder, "cut"))
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("steps", "status", "message"),
    [(range(2, 4), 0, "2 in a row"), (range(3, 99), 1, "3 steps in a row up to step 5")],
    ids=["skipped", "too many"],
)
def test_steps_that_are_not_finite_are_skipped_and_many_stop_the_run(
    run, monkeypatch, capsys, steps, status, message
):
    batch = Prefetch.__call__

    def with_nan(self, step):
        return batch(self, step) * (float("nan") if step in steps else 1)

    monkeypatch.setattr(Prefetch, "__call__", with_nan)
    assert run("--exp_version", "a", "--max_skips", "3") == status
    out = capsys.readouterr().out
    assert f"step {steps[0]}: the loss (nan)" in out and message in out
    saved = state(run.folder, "a")
    assert saved["step"] == (6 if status else STEPS)
    assert all(torch.isfinite(v).all() for v in saved["model"].values())


def test_a_failing_worker_stops_with_the_state_saved(run, monkeypatch, capsys):
    assert run("--exp_version", "whole") == 0
    stored = RandomCrops.stored

    def failing(self, step, *rest):
        if step == 5:
            raise OSError("the disk with the images is gone")
        return stored(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(RandomCrops, "stored", failing)
        assert run("--exp_version", "cut", "--overwrite") == 1
    assert "No crops for step 5: the disk with the images is gone" in capsys.readouterr().err
    assert state(run.folder, "cut")["step"] == 5
    assert run("--exp_version", "cut", "--overwrite", "--resume") == 0
    assert_same_weights(state(run.folder, "whole"), state(run.folder, "cut"))


def no_room(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_and_what_was_there_stays(run, monkeypatch, capsys):

    assert run("--exp_version", "a", "--time_limit", "1e-9") == 0
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", no_room)
        assert run("--exp_version", "a", "--resume", "--time_limit", "1e-9") == 1
        out = capsys.readouterr().out
        assert "No space left on device" in out and "make room" in out
        assert "The state of step 1 is saved" in out
    assert state(run.folder, "a")["step"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", no_room)
        assert run("--exp_version", "a", "--resume") == 1
        error = capsys.readouterr().err
        assert f"The state of step {STEPS} is saved; put it right and repeat" in error
    assert state(run.folder, "a")["step"] == STEPS
    assert run("--exp_version", "a", "--resume") == 0
    assert len(checkpoint.find("Factorized", run.folder / "ckpts")) == 1
    capsys.readouterr()
    monkeypatch.setattr(torch, "save", no_room)
    monkeypatch.setattr(checkpoint, "save", no_room)
    assert run("--exp_version", "b") == 1  # where nothing can be saved, nothing is said to be
    for said in capsys.readouterr():
        assert "No state is saved" in said
        assert " is saved" not in said.replace("No state is saved", "")


def test_a_damaged_state_is_refused(run, capsys):
    """Wherever a byte is changed or the file ends; the first time by train.py itself."""
    assert run("--exp_version", "a", "--time_limit", "1e-9") == 0
    folder = run.folder / "runs/Factorized/a"
    whole = (folder / "state.pt").read_bytes()
    random.seed(7)
    damaged = [whole[:1000], whole[:-1], b""]
    for place in (random.randrange(len(whole)) for _ in range(40)):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    settings = resolve(train.parser().parse_args(run.flags))
    with closing(Run(folder, settings)) as opened:
        for data in damaged:
            (folder / "state.pt").write_bytes(data)
            with pytest.raises(TrainingError, match="state.pt cannot be read: it is damaged"):
                opened.begin({})
    assert run("--exp_version", "a", "--resume") == 1
    one_line(capsys, "state.pt cannot be read")


def test_flags_that_decide_what_is_computed_bind(run):
    settings = resolve(train.parser().parse_args(run.flags))
    assert settings.differences(settings.config()) == []
    for flag, value in (
        *((f"--{name}", "B") for name in ("init_ckpt", "init_transforms", "dataset")),
        *(("--test_dataset", "B"), ("--seed", "1"), ("--epoch", "3"), ("--lmbda", "0.0067")),
    ):
        other = resolve(train.parser().parse_args([*run.flags, flag, value]))
        (difference,) = other.differences(settings.config())
        assert difference.startswith(f"{flag} was ")


def test_a_checkpoint_tells_of_the_parent_that_its_run_began_from(run, capsys):
    assert run("--exp_version", "parent") == 0
    (parent,) = checkpoint.find("Factorized", run.folder / "ckpts")
    first = str(shutil.copy(parent, run.folder / "first.safetensors"))
    second = str(shutil.copy(parent, run.folder / "second.safetensors"))
    words = ("--exp_version", "a", "--overwrite", "--resume")
    assert run(*words, "--init_ckpt", first, "--rescale", "0.9", "--time_limit", "1e-9") == 0
    capsys.readouterr()
    for wrong, message in (
        (("--init_ckpt", second, "--rescale", "0.9"), "--init_ckpt was first.safetensors, is now"),
        ((), "--init_ckpt was first.safetensors, is now None"),
        (("--init_ckpt", first), "--rescale was 0.9, is now None"),
    ):
        assert run(*words, *wrong) == 1
        one_line(capsys, message)
    Path(first).unlink()  # no longer needed
    assert run(*words, "--init_ckpt", first, "--rescale", "0.9") == 0
    provenance = checkpoint.read_metadata(parent)["provenance"]
    assert provenance["parent"] == "first.safetensors" and not provenance["demonstration"]
    assert [run["steps"] for run in provenance["ancestors"]] == [STEPS]


def test_other_images_are_not_gone_on_with(run, photographs, capsys):
    folder = shutil.copytree(photographs, run.folder / photographs.name)
    words = ("--exp_version", "a", "--dataset", str(folder))
    assert run(*words, "--time_limit", "1e-9") == 0
    Image.new("RGB", (64, 64)).save(folder / "more.png")
    assert run(*words, "--resume") == 1
    one_line(capsys, "the images are not the same")


def test_an_unreadable_image_among_many_is_skipped(run, photographs, tmp_path, capsys):
    folder = shutil.copytree(photographs, tmp_path / "mixed")
    (folder / "broken.png").write_bytes(b"no image")
    assert run("--dataset", str(folder), "--epoch", "1") == 0
    assert "broken.png" in capsys.readouterr().out
    assert run("--dataset", str(tmp_path / "nowhere")) == 1
    assert "nowhere" in capsys.readouterr().err
