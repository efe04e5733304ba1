"""Several processes that train together, and signals to one or all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from models.errors import TrainingError
from tests.programs import ROOT
from tests.training.runs import STEPS, rows, state
from training.crops import Prefetch
from training.team import Team

SAVED = "to go on, repeat the command with --resume"
STOPPING = "train.py: stopping after this step.\n"


def test_ctrl_c_saves_and_exits_with_130(run, monkeypatch, capfd):
    batch = Prefetch.__call__

    def interrupted(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(Prefetch, "__call__", interrupted)
    assert run("--exp_version", "c") == 130
    out, err = capfd.readouterr()
    assert SAVED in out and err == STOPPING
    assert state(run.folder, "c")["step"] == 6


def two_processes(run, *extra: str) -> subprocess.Popen:
    """train.py in a session of its own, in its second epoch of very many."""
    words = [*run.flags, "--exp_version", "two", "--gpu_id", "cpu cpu", "--epoch", "9999", *extra]
    process = subprocess.Popen(
        [sys.executable, "train.py", *words], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith(f"epoch 1  step {STEPS}"):
            break
    return process


def test_two_processes_give_the_curve_of_one_with_twice_the_batch_and_stop_at_ctrl_c(run):
    """But for the order of summation."""
    words = ("--quantization", "round", "--ste_fraction", "0", "--clip", "0")
    words += ("--scheduler", "constant")
    assert run(*words, "--batch_size", "4", "--exp_version", "one") == 0
    process = two_processes(run, *words)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out.count(SAVED) == 1 and err == STOPPING  # one process speaks
    assert state(run.folder, "two")["step"] >= STEPS

    one = rows(run.folder, "one")
    assert len(one) == STEPS // 2
    for a, b in zip(one, rows(run.folder, "two")[: len(one)], strict=True):
        assert a["images"] == b["images"]
        for column in ("loss", "bpp", "psnr", "val_loss"):
            if a[column]:
                assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-4)


def test_when_a_process_is_killed_the_first_saves_and_all_end(run):
    process = two_processes(run)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (second,) = (
        int(child) for child in children
        if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes()
    )  # fmt: skip
    os.kill(second, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode in (1, 128 + signal.SIGKILL)  # the first's, if both are seen at once
    assert "train.py: Another process does not answer" in err and "Traceback" not in err
    assert state(run.folder, "two")["step"] >= STEPS - 1
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_is_told_by_the_process_that_failed_and_all_leave(failing, monkeypatch):
    def gather(failed, _):
        failed[:] = [rank == failing for rank in range(2)]

    monkeypatch.setattr(dist, "all_gather_object", gather)
    monkeypatch.setattr(dist, "barrier", lambda: None)

    def action():
        raise TrainingError("no room")

    with pytest.raises(TrainingError, match="no room"):
        Team(failing, 2).together(action)
    with pytest.raises(SystemExit, match="1"):
        Team(1 - failing, 2).together(lambda: None)
