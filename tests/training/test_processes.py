"""Several processes that train together, and signals to one or all of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT
from tests.training.runs import STEPS, rows, start_program, state
from training.feed import Prefetch


def test_two_processes_give_the_curve_of_one_with_twice_the_batch(run):
    """But for the order of summation. Once started by torchrun, once by --gpu_id."""
    words = ("--quantization", "round", "--ste_fraction", "0", "--clip", "0", "--overwrite")
    assert run(*words, "--batch_size", "4", "--exp_version", "one") == 0
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        *("train.py", *run.flags, *words, "--exp_version", "torchrun"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Finished") == 1  # one process writes
    assert "deprecated" not in done.stderr
    assert run(*words, "--gpu_id", "cpu cpu", "--exp_version", "gpu_id") == 0

    one = rows(run.folder, "one")
    assert len(one) == STEPS // 2
    for version in ("torchrun", "gpu_id"):
        for a, b in zip(one, rows(run.folder, version), strict=True):
            assert a["images"] == b["images"]
            for column in ("loss", "bpp", "psnr", "val_loss"):
                if a[column]:
                    assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-4)


def test_ctrl_c_saves_and_exits_with_130(run, monkeypatch, capfd):
    batch = Prefetch.__call__

    def interrupted(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(Prefetch, "__call__", interrupted)
    assert run("--exp_version", "c") == 130
    check_saved(run, *capfd.readouterr())


def test_ctrl_c_to_several_processes_saves_and_exits_with_130(run):
    process = training(run, "--gpu_id", "cpu cpu")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    check_saved(run, out, err)


def check_saved(run, out: str, err: str) -> None:
    assert "to go on, repeat the command with --resume" in out
    assert err == "train.py: stopping after this step.\n"  # at once, and once
    assert state(run.folder, "c")["step"] >= 5


def test_processes_stop_together_when_one_cannot_start(run, capfd):
    assert run("--exp_version", "a") == 0
    assert run("--exp_version", "a", "--gpu_id", "cpu cpu") == 1
    error = capfd.readouterr().err
    assert error.count("holds another run") == 1 and error.count("\n") == 1


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
    stopped = Path(f"/proc/{children[1]}/status")
    while "State:\tT" not in stopped.read_text():  # signals that come sooner are handled first
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    while not has(children[1], "ShdPnd", signal.SIGTERM):  # passed on to it
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.endswith("train.py: interrupted; --resume goes on from the last saved state.\n")
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_ctrl_c_while_the_processes_start_is_one_line(run):
    process = start_program([*run.flags, "--gpu_id", "cpu cpu"])
    while len(started_by(process)) < 2 or has(process.pid, "SigIgn", signal.SIGINT):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == "train.py: interrupted; --resume goes on from the last saved state.\n"


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
