"""train.py as a user meets it: what a run leaves, and that it overwrites nothing."""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import models
import train
from evaluation import bench
from models import checkpoint
from models.errors import TrainingError
from tests.helpers import make
from tests.programs import SecondCodec, load_test_program, read_csv
from tests.training.runs import PAUSE, STEPS, rows, settings, state
from training.data import open_data
from training.log import Log
from training.loop import Trainer
from training.run import Run


def test_a_run_leaves_checkpoint_curve_log_and_state(run, capsys):
    assert run("--exp_version", "a", "--check_time", "1") == 0
    out = capsys.readouterr().out
    assert "images/s" in out and "dB" in out and "left 0:00:" in out
    assert "Warning: 8 steps from random weights lead nowhere" in out and "70,000" in out
    path = checkpoint.path_for("Factorized", 1, 0.013, run.folder / "ckpts")
    assert list(path.parent.glob("*")) == [path]  # the intermediate one is gone
    model = checkpoint.load(path)
    assert model.frozen and (model.N, model.M) == (8, 12)
    provenance = model.metadata["provenance"]
    assert provenance["steps"] == STEPS and provenance["images_seen"] == 2 * STEPS
    assert provenance["seed"] == 0 and provenance["parent"] is None and provenance["hours"] > 0
    assert provenance["images"] == 5 and model.metadata["config"]["optimizer"] == "muon"
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
    words = ("--model_name", name, "--patch_size", "64", "--epoch", "3", "--batch_size", "1")
    words += ("--steps_per_epoch", "1", "--log_every", "1", "--val_time", "2")
    assert run(*words, "--precision", "bf16", "--seed", "3", "--exp_version", "a") == 0
    assert [bool(row["val_loss"]) for row in rows(run.folder, "a", name)] == [False, True, True]
    assert len(checkpoint.find(name, run.folder / "ckpts")) == 1


def test_without_data_it_is_a_demonstration(tmp_path, capsys):
    words = f"--code_rate low --N 8 --M 12 --epoch 1 --steps_per_epoch 2 --patch_size 64 \
        --batch_size 1 --gpu_id cpu --no_tensorboard --runs {tmp_path}/r --ckpts {tmp_path}/c"
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
    last = capsys.readouterr().out.splitlines()[-1]
    command = shlex.split(last.partition("To test it: python test.py ")[2])
    assert str(path) in command
    images = ["--dataset_path", words[words.index("--dataset") + 1], "--device", "cpu"]
    assert load_test_program().main([*command, *images, "--outdir", str(run.folder)]) == 0
    assert read_csv(run.folder / "Factorized.csv")[0]["lmbda"] == "0.013"


@pytest.fixture
def parent(tmp_path):
    """Saves a tiny Factorized model as a run would have; returns its path."""

    def save(run_id: str, lmbda: float, seed: int):
        path, model = tmp_path / f"{run_id}.safetensors", make("Factorized", seed, lmbda=lmbda)
        provenance = {"run_id": run_id, "steps": STEPS}
        checkpoint.save(path, model, config={"patch_size": 32}, provenance=provenance)
        return path

    return save


def test_init_ckpt_takes_what_fits_and_lists_the_rest(run, parent, capsys):
    path = parent("a", 0.013, seed=0)
    words = ("--model_name", "Hyperprior", "--patch_size", "64", "--steps_per_epoch", "1")
    assert run(*words, "--init_ckpt", str(path), "--lr", "1e-9") == 0
    out = capsys.readouterr().out
    assert "Took 28 of" in out and "Left as they were:" in out and "h_a.0.weight" in out
    assert "Not taken from it: entropy_bottleneck.biases.0" in out
    (child,) = checkpoint.find("Hyperprior", run.folder / "ckpts")
    assert str(run.folder).encode() not in child.read_bytes()  # nothing of the machine's folders
    child = checkpoint.load(child)
    weight = checkpoint.load(path).state_dict()["g_a.0.weight"]
    assert torch.allclose(child.state_dict()["g_a.0.weight"], weight, atol=1e-6)
    provenance = child.metadata["provenance"]
    assert provenance["parent"] == child.metadata["config"]["init_ckpt"] == path.name
    (before,) = provenance["ancestors"]
    assert (before["run_id"], before["model"], before["steps"]) == ("a", "Factorized", STEPS)
    assert before["patch_size"] == 32


def test_init_transforms_replace_those_of_init_ckpt(run, parent):
    low, high = parent("a", 0.01, seed=0), parent("b", 0.04, seed=1)
    words = ("--init_ckpt", str(low), "--init_transforms", str(high), "--lmbda", "0.04")
    assert run(*words, "--fixed", "g_a", "g_s", "--lr", "1e-9", "--exp_version", "c") == 0
    (path,) = checkpoint.find("Factorized", run.folder / "ckpts")
    child = checkpoint.load(path)
    transforms, first = (checkpoint.load(path).state_dict() for path in (high, low))
    for name, value in child.state_dict().items():
        if name.startswith(("g_a.", "g_s.")):
            assert torch.equal(value, transforms[name])
    matrix = "entropy_bottleneck.matrices.1"
    assert torch.allclose(child.state_dict()[matrix], first[matrix], atol=1e-6)
    provenance = child.metadata["provenance"]
    assert [run["run_id"] for run in provenance["ancestors"]] == ["a", "b"]
    joined = [run.get("joined_by") for run in provenance["ancestors"]]
    assert joined == [None, provenance["run_id"]]


def test_curve_is_recorded_and_tensorboard_keeps_every_point_of_a_resumed_run(
    run, monkeypatch, capsys
):
    monkeypatch.chdir(run.folder)
    words = [word for word in run.flags if word != "--no_tensorboard"]
    words += ["--record", "--exp_version", "b", "--log_every", "1", "--resume", "--warmup", "4"]
    for limit in (PAUSE, ()):
        assert train.main([*words, *limit]) == 0
    recorded = run.folder / "statistics/training/Factorized_lmbda_0.013.csv"
    assert recorded.read_text() == (run.folder / "runs/Factorized/b/curve.csv").read_text()
    rates = [float(row["lr"]) for row in read_csv(recorded)[:4]]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])  # of muon, while it warms up
    board = run.folder / "runs/Factorized/b/tensorboard"
    assert f"tensorboard --logdir {board}" in capsys.readouterr().out
    events = EventAccumulator(str(board)).Reload()
    for name in ("training/loss", "training/lr"):
        assert [event.step for event in events.Scalars(name)] == list(range(1, STEPS + 1))
    assert [event.step for event in events.Scalars("validation/psnr")] == [4, 8]


def test_gradients_are_clipped(run, monkeypatch):
    norms = []
    gradients = Trainer.gradients

    def noted(trainer, x):
        stats = gradients(trainer, x)
        after = torch.stack([p.grad.norm() for p in trainer.parameters if p.grad is not None])
        norms.append((stats[3], after.norm().item()))
        return stats

    monkeypatch.setattr(Trainer, "gradients", noted)
    assert run("--clip", "0.01", *PAUSE) == 0
    ((before, after),) = norms
    assert before > 0.1 and after == pytest.approx(0.01, rel=1e-3)


def test_missing_tensorboard_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with closing(Log(tmp_path, tensorboard=True)) as log:
        log.begin(0, 1)
    assert "TensorBoard is not installed" in capsys.readouterr().out


def test_in_place_of_a_held_out_image_that_cannot_be_read_the_next_is_taken(
    run, photographs, capsys
):
    folder = shutil.copytree(photographs, run.folder / "images")
    (folder / "broken\x1b.png").write_bytes(b"no image")
    flags = settings(*run.flags, "--dataset", str(folder))
    before = open_data(flags)
    assert r"broken\x1b.png" in before.report and "\x1b" not in before.report
    names = {path.name for path in photographs.iterdir()}
    (first,) = names - {s.name for s in before.images.sources}  # never trained on
    assert before.held_out[0].shape == (3, 96, 96)
    (folder / first).write_bytes((folder / first).read_bytes()[:-200])
    after = open_data(flags)
    rest = {s.name for s in after.images.sources}
    assert len(after.held_out) == 1 and first not in rest and rest < names - {first}
    assert not torch.equal(after.held_out[0], before.held_out[0])
    assert f"{first} cannot be read" in capsys.readouterr().err


def test_runs_are_numbered_and_a_folder_has_one_run_and_one_process(run):
    flags = settings(*run.flags)
    folders = []
    for _ in range(2):
        with closing(Run(flags)) as opened:
            folders.append(opened.folder)
            opened.save({"step": 3})
    assert folders == [run.folder / f"runs/Factorized/run_{i}" for i in range(2)]
    with pytest.raises(TrainingError, match="add --resume .* another --exp_version"):
        Run(replace(flags, exp_version="run_1"))
    again = replace(flags, exp_version="run_0", resume=True)
    with closing(Run(again)), pytest.raises(TrainingError, match="Another process is trai"):
        Run(again)
    with closing(Run(replace(flags, resume=True))) as last:
        assert last.folder == folders[1]
    with pytest.raises(TrainingError, match="no run to resume"):
        Run(replace(flags, model_name="Hyperprior", resume=True))


def test_a_checkpoint_of_another_run_stays_unless_overwrite(run):
    path = checkpoint.path_for("Factorized", 1, 0.013, run.folder / "ckpts")
    model = make("Factorized")

    def save(*words: str) -> str:
        with closing(Run(settings(*run.flags, *words))) as opened:
            opened.checkpoint(model, 1, {})
            return opened.origin["run_id"]

    def owner(path) -> str:
        return checkpoint.read_metadata(path)["provenance"]["run_id"]

    first, second = save("--exp_version", "a"), save("--exp_version", "b")
    (beside,) = checkpoint.find("Factorized", run.folder / "runs/Factorized/b/ckpts")
    assert owner(path) == first and owner(beside) == second
    third = save("--exp_version", "c", "--overwrite")
    assert owner(path) == third
