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
from pathlib import Path

import numpy as np
import pytest

import codec
from evaluation import bench
from evaluation.photographs import open_photographs
from evaluation.points import trained_point
from evaluation.results import Results
from models import checkpoint
from models.coding.container import unpack
from models.files import LOCK, atomic_write, locked
from models.images import read_image
from tests.helpers import make
from tests.programs import (
    LAMBDAS,
    ROOT,
    SIZES,
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


# Forks start in no time, and are killed with their decoders: some while files are written.
KILLS = """
import multiprocessing, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from evaluation import bench
from tests.programs import load_test_program
driver = load_test_program()
bench.multiprocessing = multiprocessing.get_context("fork")
bench.multiprocessing.get_context = lambda kind: bench.multiprocessing
out, rng = Path(sys.argv[1]) / "out", random.Random(0)
for k in range(int(sys.argv[2])):
    before = {p: p.stat().st_ino for p in out.rglob("*.*")}
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        while os.getppid() == parent and driver.main(sys.argv[3:]) == 0:
            pass
        os._exit(3)
    while {p: p.stat().st_ino for p in out.rglob("*.lic")}.items() <= before.items():
        if os.waitpid(child, os.WNOHANG)[0]:
            sys.exit("the test ended by itself")
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 0.3))
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
    if sys.stdin.readline() != "go on\\n":
        break
"""


def test_a_test_killed_at_any_moment_leaves_whole_files(ckpts, photographs, tmp_path):
    """And what a killed run leaves is no hindrance to the next."""
    arguments = words(ckpts, photographs, tmp_path)
    expected = {}
    for path in checkpoint.find("Factorized", ckpts):
        point = trained_point(path)
        for image in SIZES:
            place = f"lmbda_{point.lmbda:g}/{Path(image).stem}.lic"
            expected[place] = point.load().encode(read_image(photographs / image))
    command = [sys.executable, "-c", KILLS, str(tmp_path), "4", *arguments]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
    for _ in range(4):
        assert process.stdout.readline() == "killed\n", process.communicate()
        for path in compressed(tmp_path):
            assert path.read_bytes() == expected[f"{path.parent.name}/{path.name}"]
        for path in (tmp_path / "out").rglob("lmbda_*/[!.]*.png"):
            assert read_image(path).shape[:2] == SIZES[path.name]
        for path in (tmp_path / "res").rglob("[!.]*.csv"):
            images = len(SIZES) if path.parent.name == "per_image" else 1
            assert len(read_csv(path)) in (images, images * len(LAMBDAS))
        process.stdin.write("go on\n")
        process.stdin.flush()
    process.communicate()


def compressed(folder):
    found = [p for p in (folder / "out").rglob("*.lic") if not p.name.startswith(".")]
    for path in found:
        unpack(path.read_bytes())
    return found


def test_the_decoder_does_not_outlive_a_killed_test(ckpts, photographs, tmp_path):
    command = [sys.executable, "test.py", *words(ckpts, photographs, tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert "Factorized on" in process.stdout.readline()
    assert "lambda" in process.stdout.readline()
    process.kill()
    process.communicate(timeout=120)  # returns when no process holds the pipe any more
    compressed(tmp_path)


class StuckPoint:
    """A codec whose decoder interrupts the test in the middle of writing an image."""

    source, lmbda = "stuck", 1.0

    def __init__(self, target: Path):
        self.target = target

    def load(self):
        return self

    def encode(self, pixels: np.ndarray) -> bytes:
        return b"warm-up" if (pixels == 128).all() else b"image"

    def decode(self, data: bytes) -> np.ndarray:
        if data == b"image":
            with atomic_write(self.target) as temporary:
                temporary.write_bytes(b"half")
                os.kill(os.getppid(), signal.SIGINT)
                signal.pause()
        return np.zeros((8, 8, 3), np.uint8)


def test_a_decoder_that_ends_while_it_writes_leaves_nothing(photographs, tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            point = StuckPoint(tmp_path / "small.png")
            bench.evaluate(point, open_photographs(photographs / "small.png"), tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert files_in(tmp_path) == ["small.lic"]


@pytest.mark.parametrize("program", ["codec.py", "test.py", "train.py"])
def test_ctrl_c_during_imports_is_no_traceback(program, tmp_path):
    """A stand-in for torch interrupts, when it is imported."""
    stand_in = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "torch.py").write_text(stand_in)
    (tmp_path / "numpy.py").write_text(stand_in)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / program), "--help"]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=120)
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


def test_of_two_codecs_writing_one_file_the_last_one_wins_whole(ckpts, photographs, tmp_path):
    """Nothing is refused and nothing is mixed: the file is that of either run."""
    common = ["--ckpt_dir", str(ckpts), "--model_name", "Factorized", "--overwrite"]

    def compress(image, out):
        assert codec.main(["compress", str(photographs / image), str(out), *common]) == 0

    alone = set()
    for image in SIZES:
        compress(image, tmp_path / "alone")
        alone.add((tmp_path / "alone").read_bytes())
    out = tmp_path / "out.lic"
    with ThreadPoolExecutor(6) as pool:
        runs = [pool.submit(compress, image, out) for image in [*SIZES] * 3]
        while not all(run.done() for run in runs):
            assert not out.exists() or out.read_bytes() in alone
            time.sleep(0.01)
    for run in runs:
        run.result()
    assert len(alone) == 2 and out.read_bytes() in alone
    assert files_in(tmp_path) == ["alone", "out.lic"]


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
