"""train.py as a user meets it: files, interruptions, trouble, several processes."""

from __future__ import annotations

import errno
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import models
import train
from models import checkpoint
from tests.programs import load_test_program, read_csv
from training import feed
from training.crops import RandomCrops
from training.run import Run
from training.settings import resolve

ROOT = Path(__file__).parents[1]
STEPS = 8  # of the runs below: two epochs of four


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Six small images of smooth blotches."""
    folder = tmp_path_factory.mktemp("photographs")
    for k in range(6):
        coarse = np.random.default_rng(k).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((112, 96), Image.BICUBIC).save(folder / f"{k}.png")
    return folder


@pytest.fixture
def run(photographs, tmp_path):
    """Run train.py in this process with tiny defaults; returns the exit code."""

    def start(*extra: str) -> int:
        return train.main([*tiny(photographs, tmp_path), *extra])

    start.folder = tmp_path
    start.flags = tiny(photographs, tmp_path)
    return start


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


# A run ----------------------------------------------------------------------------------------


def test_a_run_leaves_checkpoint_curve_log_and_state(run, capsys):
    assert run("--exp_version", "a", "--check_time", "1") == 0
    out = capsys.readouterr().out
    assert "images/s" in out and "dB" in out and "left 0:00:" in out
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


def test_validation_comes_every_val_time_epochs_and_at_the_end(run):
    words = ("--epoch", "5", "--steps_per_epoch", "2", "--val_time", "2")
    assert run("--exp_version", "a", *words) == 0
    curve = rows(run.folder, "a")
    assert [bool(row["val_loss"]) for row in curve] == [False, True, False, True, True]
    assert run("--exp_version", "b", "--val_time", "0") == 1


@pytest.mark.parametrize("name", list(models.MODELS))
def test_every_model_trains(name, run):
    words = ("--model_name", name, "--patch_size", "64", "--epoch", "1", "--batch_size", "1")
    assert run(*words, "--steps_per_epoch", "2", "--precision", "bf16", "--seed", "3") == 0
    assert len(checkpoint.find(name, run.folder / "ckpts")) == 1


def test_without_data_it_is_a_demonstration(tmp_path, capsys):
    words = f"--model_name Hyperprior --code_rate low --N 8 --M 12 --epoch 1 --steps_per_epoch 2 \
        --batch_size 1 --gpu_id cpu --no_tensorboard --runs {tmp_path}/r --ckpts {tmp_path}/c"
    assert train.main(words.split()) == 0
    out = capsys.readouterr().out
    assert "DEMONSTRATION" in out and "NOT the training" in out and "sample photographs" in out
    (path,) = checkpoint.find("Hyperprior", tmp_path / "c")
    assert path.name == "epoch_0_lmbda_0.0067.safetensors"
    assert checkpoint.read_metadata(path)["provenance"]["demonstration"]


def test_checkpoints_lie_with_the_run_and_the_command_that_tests_them_is_told(run, capsys):
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
    assert "Took 28 of" in out and "Left at random:" in out and "h_a.0.weight" in out
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


def test_fixed_parts_stay_as_they_are(run, capsys):
    assert run("--exp_version", "parent") == 0
    (path,) = checkpoint.find("Factorized", run.folder / "ckpts")
    words = ("--init_ckpt", str(path), "--overwrite", "--fixed", "g_a")
    before = checkpoint.load(path).state_dict()
    assert run("--exp_version", "child", *words) == 0
    after = checkpoint.load(path).state_dict()
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert {name for name in before if name.startswith("g_a")} <= same
    assert "g_s.0.weight" not in same and "entropy_bottleneck.biases.0" not in same
    assert run("--exp_version", "other", *words[:-1], "g_b") == 1
    assert "--fixed g_b: Factorized has g_a, g_s" in capsys.readouterr().err


def test_curve_is_recorded_and_tensorboard_written_when_asked(run, monkeypatch):
    monkeypatch.chdir(run.folder)
    words = [word for word in run.flags if word != "--no_tensorboard"]
    assert train.main([*words, "--record", "--exp_version", "b"]) == 0
    recorded = run.folder / "statistics/training/Factorized_lmbda_0.013.csv"
    assert recorded.read_text() == (run.folder / "runs/Factorized/b/curve.csv").read_text()
    assert list((run.folder / "runs/Factorized/b/tensorboard").glob("events*"))


def test_tensorboard_keeps_every_point_of_a_resumed_run(run):
    words = [*(word for word in run.flags if word != "--no_tensorboard"), "--exp_version", "a"]
    for _ in range(3):
        assert train.main([*words, "--log_every", "1", "--resume", "--time_limit", "1e-9"]) == 0
    events = EventAccumulator(str(run.folder / "runs/Factorized/a/tensorboard")).Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2, 3]


def test_missing_tensorboard_is_one_line(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    words = [word for word in run.flags if word != "--no_tensorboard"]
    assert train.main([*words, "--steps_per_epoch", "1", "--epoch", "1"]) == 0
    assert "TensorBoard is not installed" in capsys.readouterr().out


# Runs do not overwrite each other ---------------------------------------------------------------


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
    with Run(run.folder / "runs/Factorized/a"):
        assert run("--exp_version", "a", "--resume") == 1
    assert "Another process is training" in capsys.readouterr().err
    assert run("--exp_version", "a", "--resume") == 0


# Interrupted runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "muon", "soap"])
def test_time_limit_and_resume_end_with_the_same_weights(run, optimizer, capsys):
    run.flags += ["--optimizer", optimizer]
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
    assert checkpoint.find("Factorized", run.folder / "ckpts")[0].read_bytes() == before


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


@pytest.mark.parametrize("gpu_id", ["cpu", "cpu cpu"])
def test_ctrl_c_saves_and_exits_with_130(run, gpu_id):
    process = training(run, "--gpu_id", gpu_id)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert "to go on, repeat the command with --resume" in out and err == ""
    assert state(run.folder, "c")["step"] >= 5


# Trouble ------------------------------------------------------------------------------------------


def poisoned(monkeypatch, steps: range) -> None:
    batch = RandomCrops.batch

    def with_nan(self, step, *rest):
        return batch(self, step, *rest) * (float("nan") if step in steps else 1)

    monkeypatch.setattr(RandomCrops, "batch", with_nan)


def test_a_step_that_is_not_finite_is_skipped(run, monkeypatch, capsys):
    poisoned(monkeypatch, range(2, 4))
    assert run("--exp_version", "a") == 0
    out = capsys.readouterr().out
    assert "step 2: the loss (nan)" in out and "2 in a row" in out
    assert all(torch.isfinite(v).all() for v in state(run.folder, "a")["model"].values())


def test_many_of_them_stop_the_run_and_say_where(run, monkeypatch, capsys):
    poisoned(monkeypatch, range(3, 99))
    assert run("--exp_version", "a", "--max_skips", "3") == 1
    assert "3 steps in a row up to step 5" in capsys.readouterr().out
    kept = state(run.folder, "a")
    assert kept["step"] == 6
    assert all(torch.isfinite(v).all() for v in kept["model"].values())


def test_a_failing_worker_stops_with_the_state_saved(run, monkeypatch, capsys):
    assert run("--exp_version", "whole") == 0
    batch = RandomCrops.batch

    def failing(self, step, *rest):
        if step == 5:
            raise OSError("the disk with the images is gone")
        return batch(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(RandomCrops, "batch", failing)
        assert run("--exp_version", "cut", "--overwrite") == 1
    assert "No crops for step 5: the disk with the images is gone" in capsys.readouterr().err
    assert state(run.folder, "cut")["step"] == 5
    assert run("--exp_version", "cut", "--overwrite", "--resume") == 0
    assert_same_weights(state(run.folder, "whole"), state(run.folder, "cut"))


def test_a_full_disk_is_said_and_what_was_there_stays(run, monkeypatch, capsys):
    full = OSError(errno.ENOSPC, "No space left on device")

    def no_room(*args, **kwargs):
        raise full

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


def test_on_a_full_disk_nothing_is_said_to_be_saved(run, monkeypatch, capsys):
    def no_room(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", no_room)
    monkeypatch.setattr(checkpoint, "save", no_room)
    assert run("--exp_version", "a") == 1
    said = capsys.readouterr()
    assert "No state is saved" in said.out and "No state is saved" in said.err
    assert " is saved" not in (said.out + said.err).replace("No state is saved", "")


def test_a_damaged_state_is_refused(run, capsys):
    assert run("--exp_version", "a", "--time_limit", "1e-9") == 0
    path = run.folder / "runs/Factorized/a/state.pt"
    path.write_bytes(path.read_bytes()[:1000])
    assert run("--exp_version", "a", "--resume") == 1
    assert "state.pt cannot be read" in capsys.readouterr().err


def test_an_unreadable_image_among_many_is_skipped(run, photographs, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in photographs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    assert run("--dataset", str(folder), "--epoch", "1") == 0
    assert "broken.png" in capsys.readouterr().out
    assert run("--dataset", str(tmp_path / "nowhere")) == 1
    assert "nowhere" in capsys.readouterr().err


def test_validation_images_are_never_trained_on(run):
    words = [*run.flags, "--patch_size", "32"]
    data = feed.open_data(resolve(train.parser().parse_args(words)))
    assert len(data.crops.images) == 5 and len(data.held_out) == 1
    assert data.held_out[0].shape == (3, 96, 96)


# Several processes --------------------------------------------------------------------------------


def test_two_processes_give_the_curve_of_one_with_twice_the_batch(run):
    """Exactly, but for the order of summation, with rounding; closely with noise, since each
    process draws its own. Once started by torchrun, once by --gpu_id."""
    options = ("--ste_fraction", "0", "--clip", "0", "--overwrite")
    one, two = ("--batch_size", "4"), ("--batch_size", "2")

    words = ("--quantization", "round", *options)
    assert run(*words, *one, "--exp_version", "one") == 0
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        *("train.py", *run.flags, *words, *two, "--exp_version", "two"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Finished") == 1  # one process writes
    assert "deprecated" not in done.stderr
    assert_same_curve(rows(run.folder, "one"), rows(run.folder, "two"), 1e-4)

    assert run(*options, *one, "--exp_version", "one_noise") == 0
    assert run(*options, *two, "--gpu_id", "cpu cpu", "--exp_version", "two_noise") == 0
    assert_same_curve(rows(run.folder, "one_noise"), rows(run.folder, "two_noise"), 0.02)


def assert_same_curve(one: list[dict], two: list[dict], tolerance: float) -> None:
    assert len(one) == len(two) == STEPS // 2
    for a, b in zip(one, two, strict=True):
        assert a["images"] == b["images"]
        for column in ("loss", "bpp", "psnr", "val_loss"):
            if a[column]:
                assert float(a[column]) == pytest.approx(float(b[column]), rel=tolerance)


def test_processes_stop_together_when_one_cannot_start(run, capfd):
    assert run("--exp_version", "a") == 0
    assert run("--exp_version", "a", "--gpu_id", "cpu cpu") == 1
    error = capfd.readouterr().err
    assert error.count("holds another run") == 1 and error.count("\n") == 1
    assert run("--dataset", str(run.folder / "nowhere"), "--gpu_id", "cpu cpu") == 1
    error = capfd.readouterr().err
    assert "nowhere" in error and error.count("\n") == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_stops_the_others(run, rank):
    process = training(run, "--gpu_id", "cpu cpu")
    os.kill(started_by(process)[rank], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGKILL
    assert err.startswith("train.py: ") and err.count("\n") == 1
    if rank == 1:  # the first process is there to save
        assert state(run.folder, "c")["step"] >= 4


def test_a_second_ctrl_c_ends_processes_that_hang(run):
    process = training(run, "--gpu_id", "cpu cpu")
    children = started_by(process)
    os.kill(children[1], signal.SIGSTOP)  # the first then waits for it in the middle of a step
    os.killpg(process.pid, signal.SIGINT)
    while not has(children[1], "ShdPnd", signal.SIGTERM):  # passed on to it
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == "train.py: interrupted; --resume goes on from the last saved state.\n"
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_ctrl_c_while_the_processes_start_is_one_line(run):
    words = [*run.flags, "--gpu_id", "cpu cpu"]
    process = start_program(words)
    while len(started_by(process)) < 2 or has(process.pid, "SigIgn", signal.SIGINT):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == "train.py: interrupted; --resume goes on from the last saved state.\n"


def start_program(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "train.py", *words], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def training(run, *extra: str) -> subprocess.Popen:
    """train.py in a session of its own, in its second epoch of very many."""
    process = start_program([*run.flags, "--exp_version", "c", "--epoch", "20000", *extra])
    for line in process.stdout:
        if line.startswith("epoch 1 "):
            break
    return process


def started_by(process: subprocess.Popen) -> list[int]:
    """The ids of the processes that train, the first one first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def has(pid: int, mask: str, number: int) -> bool:
    """Whether a signal is in one of the masks that Linux tells of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (value,) = re.findall(rf"^{mask}:\s*(\w+)$", status, re.MULTILINE)
    return bool(int(value, 16) >> (number - 1) & 1)
