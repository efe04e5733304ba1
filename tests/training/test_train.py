"""train.py as a user meets it: what a run leaves, and that it overwrites nothing."""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import closing

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import models
import train
from evaluation import bench
from models import checkpoint
from tests.programs import SecondCodec, load_test_program, read_csv
from tests.training.runs import STEPS, rows, state
from training import feed
from training.run import Run
from training.settings import resolve


def test_a_run_leaves_checkpoint_curve_log_and_state(run, capsys):
    assert run("--exp_version", "a", "--check_time", "1") == 0
    out = capsys.readouterr().out
    assert "images/s" in out and "dB" in out and "left 0:00:" in out
    assert "Warning: 8 steps from random weights lead nowhere" in out and "70,000" in out
    path = checkpoint.path_for("Factorized", 1, 0.013, run.folder / "ckpts")
    assert list(path.parent.glob("*")) == [path]  # the intermediate one is gone
    model = checkpoint.load(path)
    assert model.frozen and (model.N, model.M) == (8, 12)
    told = model.metadata["provenance"]
    assert told["steps"] == STEPS and told["images_seen"] == 2 * STEPS and told["images"] == 5
    assert told["seed"] == 0 and told["parent"] is None and told["hours"] > 0
    assert model.metadata["config"]["optimizer"] == "muon"
    assert str(run.folder).encode() not in path.read_bytes()
    curve = rows(run.folder, "a")
    assert [int(row["step"]) for row in curve] == [2, 4, 6, 8]
    assert [bool(row["val_loss"]) for row in curve] == [False, True, False, True]
    assert float(curve[-1]["loss"]) < float(curve[0]["loss"])
    assert "Finished" in (run.folder / "runs/Factorized/a/train.log").read_text()
    # What is saved is the average of the weights.
    averaged = state(run.folder, "a")["averaged"]["g_a.0.weight"]
    assert torch.equal(model.state_dict()["g_a.0.weight"], averaged.half().float())


@pytest.mark.parametrize("name", list(models.MODELS))
def test_every_model_trains_with_validation_every_val_time_epochs_and_at_the_end(name, run):
    words = ("--model_name", name, "--patch_size", "64", "--epoch", "5", "--batch_size", "1")
    words += ("--steps_per_epoch", "1", "--log_every", "1", "--val_time", "2")
    assert run(*words, "--precision", "bf16", "--seed", "3", "--exp_version", "a") == 0
    curve = rows(run.folder, "a", name)
    assert [bool(row["val_loss"]) for row in curve] == [False, True, False, True, True]
    assert len(checkpoint.find(name, run.folder / "ckpts")) == 1


def test_without_data_it_is_a_demonstration(tmp_path, capsys):
    words = f"--model_name Hyperprior --code_rate low --N 8 --M 12 --epoch 1 --steps_per_epoch 2 \
        --patch_size 64 --batch_size 1 --gpu_id cpu --no_tensorboard --runs {tmp_path}/r \
        --ckpts {tmp_path}/c"
    assert train.main(words.split()) == 0
    out = capsys.readouterr().out
    assert "DEMONSTRATION" in out and "NOT the training" in out and "sample photographs" in out
    (path,) = checkpoint.find("Hyperprior", tmp_path / "c")
    assert path.name == "epoch_0_lmbda_0.0067.safetensors"
    assert checkpoint.read_metadata(path)["provenance"]["demonstration"]


def test_checkpoints_lie_with_the_run_and_the_command_that_tests_them_is_told(
    run, monkeypatch, capsys
):
    monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)
    words = [word for word in run.flags if word not in ("--ckpts", f"{run.folder}/ckpts")]
    assert train.main([*words, "--exp_version", "a"]) == 0
    (path,) = checkpoint.find("Factorized", run.folder / "runs/Factorized/a/ckpts")
    told = capsys.readouterr().out.splitlines()[-1]
    command = shlex.split(told.partition("To test it: python test.py ")[2])
    assert str(path) in command
    images = ["--dataset_path", words[words.index("--dataset") + 1], "--device", "cpu"]
    assert load_test_program().main([*command, *images, "--outdir", str(run.folder)]) == 0
    assert read_csv(run.folder / "Factorized.csv")[0]["lmbda"] == "0.013"


def test_init_ckpt_takes_what_fits_and_lists_the_rest(run, capsys):
    assert run("--exp_version", "parent") == 0
    (parent,) = checkpoint.find("Factorized", run.folder / "ckpts")
    words = ("--model_name", "Hyperprior", "--patch_size", "64", "--steps_per_epoch", "1")
    assert run(*words, "--init_ckpt", str(parent), "--lr", "1e-9") == 0
    out = capsys.readouterr().out
    assert "Took 28 of" in out and "Left as they were:" in out and "h_a.0.weight" in out
    assert "Not taken from it: entropy_bottleneck.biases.0" in out
    (path,) = checkpoint.find("Hyperprior", run.folder / "ckpts")
    child = checkpoint.load(path)
    weight = checkpoint.load(parent).state_dict()["g_a.0.weight"]
    assert torch.allclose(child.state_dict()["g_a.0.weight"], weight, atol=1e-6)
    told = child.metadata["provenance"]
    assert told["parent"] == child.metadata["config"]["init_ckpt"] == parent.name
    assert str(run.folder).encode() not in path.read_bytes()  # nothing of the machine's folders
    (before,) = told["ancestors"]
    assert before["run_id"] == checkpoint.read_metadata(parent)["provenance"]["run_id"]
    assert (before["model"], before["steps"], before["patch_size"]) == ("Factorized", STEPS, 32)
    assert run("--init_ckpt", str(run.folder / "none.safetensors")) == 1
    assert "There is no checkpoint" in capsys.readouterr().err


def test_init_transforms_replace_those_of_init_ckpt(run, capsys):
    for name, lmbda in (("a", "0.01"), ("b", "0.04")):
        assert run("--exp_version", name, "--seed", lmbda[-1], "--lmbda", lmbda) == 0
    low, high = (
        checkpoint.path_for("Factorized", 1, lmbda, run.folder / "ckpts") for lmbda in (0.01, 0.04)
    )
    words = ("--init_ckpt", str(low), "--init_transforms", str(high), "--lmbda", "0.04")
    words += ("--fixed", "g_a", "g_s", "--lr", "1e-9", "--exp_version", "c", "--overwrite")
    transforms, first = (checkpoint.load(path).state_dict() for path in (high, low))
    runs = [checkpoint.read_metadata(path)["provenance"]["run_id"] for path in (low, high)]
    assert run(*words[:6], "--fixed", "g_b") == 1
    assert "--fixed g_b: Factorized has g_a, g_s" in capsys.readouterr().err
    assert run(*words) == 0
    made = checkpoint.load(high)
    for name, value in made.state_dict().items():
        if name.startswith(("g_a.", "g_s.")):
            assert torch.equal(value, transforms[name])
    biases = "entropy_bottleneck.biases.0"
    assert torch.allclose(made.state_dict()[biases], first[biases], atol=1e-6)
    told = made.metadata["provenance"]
    assert [run["run_id"] for run in told["ancestors"]] == runs
    assert [run.get("joined_by") for run in told["ancestors"]] == [None, told["run_id"]]


def test_curve_is_recorded_and_tensorboard_keeps_every_point_of_a_resumed_run(
    run, monkeypatch, capsys
):
    monkeypatch.chdir(run.folder)
    words = [word for word in run.flags if word != "--no_tensorboard"]
    words += ["--record", "--exp_version", "b", "--log_every", "1", "--resume"]
    for limit in (["--time_limit", "1e-9"],) * 2 + ([],):
        assert train.main([*words, *limit]) == 0
    recorded = run.folder / "statistics/training/Factorized_lmbda_0.013.csv"
    assert recorded.read_text() == (run.folder / "runs/Factorized/b/curve.csv").read_text()
    board = run.folder / "runs/Factorized/b/tensorboard"
    assert f"tensorboard --logdir {board}" in capsys.readouterr().out
    events = EventAccumulator(str(board)).Reload()
    steps = [event.step for event in events.Scalars("training/loss")]
    assert steps == list(range(1, STEPS + 1))


def test_missing_tensorboard_is_one_line(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    words = [word for word in run.flags if word != "--no_tensorboard"]
    assert train.main([*words, "--steps_per_epoch", "1", "--epoch", "1"]) == 0
    assert "TensorBoard is not installed" in capsys.readouterr().out


def test_in_place_of_a_held_out_image_that_cannot_be_read_the_next_is_taken(run, photographs):
    folder = shutil.copytree(photographs, run.folder / "images")
    settings = resolve(train.parser().parse_args([*run.flags, "--dataset", str(folder)]))
    before = feed.open_data(settings)
    names = {path.name for path in folder.iterdir()}
    (first,) = names - {s.name for s in before.images.sources}  # never trained on
    assert before.held_out[0].shape == (3, 96, 96)
    (folder / first).write_bytes((folder / first).read_bytes()[:-200])
    after = feed.open_data(settings)
    kept = {s.name for s in after.images.sources}
    assert len(after.held_out) == 1 and first not in kept and kept < names - {first}
    assert not torch.equal(after.held_out[0], before.held_out[0])


def test_versions_are_numbered_or_refused(run, capsys):
    assert run() == 0 and run() == 0
    assert sorted(p.name for p in (run.folder / "runs/Factorized").iterdir()) == ["run_0", "run_1"]
    capsys.readouterr()
    assert run("--exp_version", "run_1") == 1
    error = capsys.readouterr().err
    assert "--resume" in error and "another --exp_version" in error


def test_checkpoint_of_another_run_is_kept_unless_told(run, capsys):
    path = checkpoint.path_for("Factorized", 1, 0.013, run.folder / "ckpts")
    assert run("--exp_version", "a") == 0
    first = path.read_bytes()
    assert run("--exp_version", "b", "--seed", "1") == 0
    assert path.read_bytes() == first
    assert "holds that of another run" in capsys.readouterr().out
    (beside,) = checkpoint.find("Factorized", run.folder / "runs/Factorized/b/ckpts")
    assert checkpoint.read_metadata(beside)["provenance"]["seed"] == 1
    assert run("--exp_version", "c", "--seed", "2", "--overwrite") == 0
    assert checkpoint.read_metadata(path)["provenance"]["seed"] == 2


def test_a_folder_in_use_is_refused(run, capsys):
    with closing(Run(run.folder / "runs/Factorized/a", resolve(train.parser().parse_args([])))):
        assert run("--exp_version", "a", "--resume") == 1
    assert "Another process is training" in capsys.readouterr().err
    assert run("--exp_version", "a", "--resume") == 0
