"""Killed, crowded and without room: files are old or new, never half, and said in a line."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import codec
from evaluation import bench
from evaluation.results import Results
from models import checkpoint
from models.coding.container import unpack
from models.files import LOCK, locked
from tests.helpers import make
from tests.programs import (
    LAMBDAS,
    ROOT,
    SIZES,
    SecondCodec,
    files_in,
    load_test_program,
    one_line,
    read_csv,
    result_row,
)

driver = load_test_program()


def words(ckpts, photographs, folder) -> list[str]:
    """The flags of test.py for a run into a folder."""
    places = {"ckpt_dir": ckpts, "dataset_path": photographs, "device": "cpu"}
    places["model_name"] = "Factorized"
    places |= {"outdir": folder / "out", "resultdir": folder / "res"}
    return [text for flag, value in places.items() for text in (f"--{flag}", str(value))]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_test_that_ends_early_leaves_whole_files_no_decoder_and_no_hindrance(
    number, ckpts, photographs, tmp_path, monkeypatch
):
    arguments = words(ckpts, photographs, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "test.py", *arguments], cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=listening,
    )  # fmt: skip
    while not any((tmp_path / "out").rglob("[!.]*.lic")) and process.poll() is None:
        time.sleep(0.05)
    if number == signal.SIGKILL:
        process.kill()
    else:  # as a terminal: the decoder's process too
        os.killpg(process.pid, number)
    _, error = process.communicate(timeout=120)  # returns when no process holds the pipe any more
    if number == signal.SIGINT:
        assert error == "test.py: interrupted; what was written so far is complete.\n"
        assert process.returncode == 130 and not any(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(driver, "draw", lambda *_: None)
    monkeypatch.setattr(bench, "DecoderProcess", SecondCodec)
    files = [unpack(path.read_bytes()) for path in (tmp_path / "out").rglob("[!.]*.lic")]
    assert len(files) <= len(SIZES) and driver.main(arguments) == 0
    assert len([*(tmp_path / "out").rglob("[!.]*.lic")]) == len(SIZES) * len(LAMBDAS)


def listening():
    """Before a program starts: a shell starts what runs with & deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("program", ["codec.py", "test.py", "train.py"])
def test_ctrl_c_during_imports_is_no_traceback(program, tmp_path):
    """A stand-in for torch interrupts, when it is imported."""
    stand_in = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "torch.py").write_text(stand_in)
    (tmp_path / "numpy.py").write_text(stand_in)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / program), "--help"]
    ended = subprocess.run(
        command, env=environment, capture_output=True, timeout=120, preexec_fn=listening
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == (b"", b"", -signal.SIGINT)


def test_two_tests_do_not_mix_their_files(ckpts, photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(driver, "draw", lambda *_: None)
    monkeypatch.setattr(
        bench,
        "evaluate",
        lambda point, images, *_: [result_row(point.lmbda, i.name) for i in images],
    )
    arguments = words(ckpts, photographs, tmp_path)
    with locked(tmp_path / "out" / f"lmbda_{LAMBDAS[0]:g}"):  # as the first one does
        assert driver.main(arguments) == 1
        one_line(capsys, "Another process is testing into", "--outdir")
        assert files_in(tmp_path) == [LOCK]
        assert driver.main([*arguments, "--lmbda", str(LAMBDAS[1])]) == 0


def test_results_of_runs_at_the_same_time_are_all_kept(tmp_path):
    lambdas = [k / 100 for k in range(1, 13)]
    with ThreadPoolExecutor(len(lambdas)) as pool:
        list(pool.map(lambda v: Results(tmp_path, "Model").merge([result_row(v)]), lambdas))
    assert [r["lmbda"] for r in Results(tmp_path, "Model").rows()] == lambdas
    assert len(read_csv(tmp_path / "Model.csv")) == len(lambdas)


@contextmanager
def no_room():
    """No file can grow beyond 1,000 bytes: the nearest to a full disk without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_the_old_file_stays(ckpts, photographs, tmp_path, capsys):
    out = tmp_path / "out"
    out.write_bytes(b"old")
    arguments = ["compress", str(photographs / "odd.png"), str(out), "--ckpt_dir", str(ckpts)]
    with no_room():
        assert codec.main([*arguments, "--model_name", "Factorized", "--overwrite"]) == 1
        one_line(capsys, "codec.py: ", "File too large")
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(out, make("Factorized"), config={}, provenance={})
    assert out.read_bytes() == b"old" and files_in(tmp_path) == ["out"]
