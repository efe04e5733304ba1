"""Runs that are interrupted, or meet trouble, and go on."""

from __future__ import annotations

import errno
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch
from PIL import Image

from models import checkpoint
from models.errors import TrainingError
from tests.programs import one_line
from tests.training.runs import PAUSE, STEPS, assert_same_weights, rows, settings, state
from training import loop
from training.crops import Prefetch, RandomCrops
from training.run import Run


def test_time_limit_and_resume_end_with_the_same_weights(run, capsys):
    assert run("--exp_version", "whole") == 0
    cut = ("--exp_version", "cut", "--overwrite", "--resume")
    assert run(*cut, *PAUSE) == 0
    out = capsys.readouterr().out
    assert "starting from the beginning" in out and "time is up after step 1 of 8" in out
    assert state(run.folder, "cut")["step"] == 1
    assert run(*cut, *PAUSE) == 0
    assert run(*cut) == 0
    assert_same_weights(state(run.folder, "whole"), state(run.folder, "cut"))
    for a, b in zip(rows(run.folder, "whole"), rows(run.folder, "cut"), strict=True):
        assert {**a, "seconds": ""} == {**b, "seconds": ""}
    # Finished: resuming once more, by default the run that was saved last, changes nothing.
    (path,) = checkpoint.find("Factorized", run.folder / "ckpts")
    before = path.read_bytes()
    assert run("--resume") == 0
    assert path.read_bytes() == before
    capsys.readouterr()
    assert run(*cut, "--epoch", "4") == 1  # a new run trains it further
    one_line(capsys, "--epoch was 2, is now 4", f"--init_ckpt {path}")


class Killed(BaseException):
    """Nothing that a program handles."""


@pytest.mark.parametrize("moment", ["in a step", "while the state is written"])
def test_a_killed_run_goes_on_from_its_last_state(run, monkeypatch, moment):
    words = ("--check_time", "1", "--overwrite", "--exp_version")
    assert run(*words, "whole") == 0
    batch, save = Prefetch.__call__, torch.save

    def killed(self, step):
        if step == 5 and moment == "in a step":
            raise Killed
        return batch(self, step)

    def cut_short(saved, path):
        save(saved, path)
        if saved["step"] == 6:
            path.write_bytes(path.read_bytes()[:1000])
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Prefetch, "__call__", killed)
        patch.setattr(torch, "save", cut_short)
        with pytest.raises(Killed):
            run(*words, "cut", "--save_minutes", "0")
    assert state(run.folder, "cut")["step"] == 5
    assert run(*words, "cut", "--resume") == 0
    assert_same_weights(state(run.folder, "whole"), state(run.folder, "cut"))


@pytest.fixture
def spoil(monkeypatch):
    """Makes the crops of some steps NaN."""
    batch = Prefetch.__call__

    def spoil(bad):
        def with_nan(self, step):
            return batch(self, step) * (float("nan") if step in bad else 1)

        monkeypatch.setattr(Prefetch, "__call__", with_nan)

    return spoil


@pytest.mark.parametrize("bad", [range(2, 4), range(3, 99)], ids=["skipped", "too many"])
def test_steps_that_are_not_finite_are_skipped_and_many_stop_the_run(run, spoil, capsys, bad):
    spoil(bad)
    status = run("--exp_version", "a", "--max_skips", "3")
    out, err = capsys.readouterr()
    assert f"step {bad[0]}: the loss (nan)" in out and "2 in a row" in out
    saved = state(run.folder, "a")
    if len(bad) == 2:
        assert status == 0 and saved["step"] == STEPS
    else:
        assert status == 1 and saved["step"] == 6 and "3 steps in a row up to step 5" in err
    assert all(torch.isfinite(v).all() for v in saved["model"].values())


@pytest.mark.parametrize("bad", [(), (1, 5, 6)], ids=["finite", "not finite"])
def test_steps_whose_figures_are_read_later_are_the_same(run, monkeypatch, spoil, capsys, bad):
    """As on a GPU: three at a time, here of steps 0-2, 3, 4-6, 7."""
    spoil(bad)
    words = ("--log_every", "50", "--overwrite", "--resume", "--exp_version")
    assert run(*words, "at once") == 0
    at_once = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    monkeypatch.setitem(loop.STRETCH, "cpu", 3)
    lengths, settle = [], loop.Trainer.settle

    def noted(trainer):
        lengths.append(len(trainer.unread))
        settle(trainer)

    monkeypatch.setattr(loop.Trainer, "settle", noted)
    assert run(*words, "later") == 0
    assert [length for length in lengths if length] == [3, 1, 3, 1]
    later = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert later == at_once and len(later) == len(bad)
    a, b = (state(run.folder, version) for version in ("at once", "later"))
    assert_same_weights(a, b)
    for key, values in a["optimizer"]["state"].items():
        assert all(torch.equal(v, b["optimizer"]["state"][key][name]) for name, v in values.items())
    for first, second in zip(*(rows(run.folder, v) for v in ("at once", "later")), strict=True):
        assert {**first, "seconds": ""} == {**second, "seconds": ""}


def test_when_the_time_is_up_a_trunk_leaves_its_weights(run):
    """A rate that cools down has to do so first."""
    for scheduler, count in (("cosine", 0), ("constant", 1)):
        assert run("--scheduler", scheduler, "--exp_version", scheduler, *PAUSE) == 0
        paths = list(run.folder.glob("ckpts/*/*"))
        assert [path.name for path in paths] == ["epoch_0_lmbda_0.013.safetensors"] * count
    averaged = state(run.folder, "constant")["averaged"]["g_s.0.weight"]
    assert torch.equal(checkpoint.load(paths[0]).g_s[0].weight, averaged.half().float())
    assert run("--scheduler", "constant", "--exp_version", "constant", "--resume") == 0
    (path,) = checkpoint.find("Factorized", run.folder / "ckpts")  # in place of that
    assert path.name == "epoch_1_lmbda_0.013.safetensors"


def test_a_failing_worker_stops_with_the_state_saved(run, monkeypatch, capsys):
    stored = RandomCrops.stored

    def failing(self, step, *rest):
        if step == 5:
            raise OSError("the disk with the images is gone")
        return stored(self, step, *rest)

    monkeypatch.setattr(RandomCrops, "stored", failing)
    assert run("--exp_version", "cut") == 1
    one_line(capsys, "the disk with the images is gone")
    assert state(run.folder, "cut")["step"] == 5


def no_room(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_and_what_was_there_stays(run, monkeypatch, capsys):
    version = ("--exp_version", "a", "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", no_room)
        assert run(*version, *PAUSE) == 1  # where nothing is saved, nothing is said to be
        out, err = capsys.readouterr()
        assert "No space left on device" in out and "make room" in out
        assert "Stopped after step 1. No state is saved" in err
    assert run(*version, *PAUSE) == 0
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", no_room)
        assert run(*version, *PAUSE) == 1
        assert "Stopped after step 2. The state of step 1 is saved" in capsys.readouterr().err
    assert state(run.folder, "a")["step"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", no_room)
        assert run(*version) == 1
        one_line(capsys, f"The state of step {STEPS} is saved; put it right and repeat")
    assert run(*version) == 0
    assert len(checkpoint.find("Factorized", run.folder / "ckpts")) == 1


def test_a_damaged_state_is_refused(run):
    """Wherever a byte is changed or the file ends."""
    assert run("--exp_version", "a", *PAUSE) == 0
    path = run.folder / "runs/Factorized/a/state.pt"
    whole = path.read_bytes()
    damaged = [whole[:1000], whole[:-1], b""]
    for place in (random.randrange(len(whole)) for _ in range(20)):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with closing(Run(settings(*run.flags, "--exp_version", "a", "--resume"))) as opened:
        for data in damaged:
            path.write_bytes(data)
            with pytest.raises(TrainingError, match="state.pt cannot be read: it is damaged"):
                opened.begin({})


def test_a_run_goes_on_with_its_own_flags_and_images_and_tells_of_its_parent(
    run, photographs, capsys
):
    assert run("--exp_version", "parent") == 0
    (parent,) = checkpoint.find("Factorized", run.folder / "ckpts")
    first = str(shutil.copy(parent, run.folder / "first.safetensors"))
    folder = shutil.copytree(photographs, run.folder / "images")
    words = ["--exp_version", "a", "--overwrite", "--resume", "--dataset", str(folder)]
    words += ["--init_ckpt", first, "--rescale", "0.9"]
    assert run(*words, *PAUSE) == 0
    capsys.readouterr()
    for other, message in (
        (("--init_ckpt", "B"), "--init_ckpt was first.safetensors, is now B"),
        (("--rescale", "1"), "--rescale was 0.9, is now 1.0"),
        (("--init_transforms", first), "--init_transforms was None"),
        (("--test_dataset", str(photographs)), "--test_dataset was None"),
        (("--seed", "1"), "--seed was 0, is now 1"),
        (("--lmbda", "0.0067"), "--lmbda was 0.013, is now 0.0067"),
    ):
        assert run(*words, *other) == 1
        one_line(capsys, message)
    Image.new("RGB", (64, 64)).save(folder / "more.png")
    assert run(*words) == 1
    one_line(capsys, "the images are not the same")
    (folder / "more.png").unlink()
    Path(first).unlink()  # no longer needed
    assert run(*words) == 0
    provenance = checkpoint.read_metadata(parent)["provenance"]
    assert provenance["parent"] == "first.safetensors" and not provenance["demonstration"]
    assert [run["steps"] for run in provenance["ancestors"]] == [STEPS]
