"""What README tells to type runs, and leaves a clone as it was.

The commands of docs/custom_model.md run in tests/codec/test_custom_model.py.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.images import to_uint8, write_image
from tests.helpers import image
from tests.programs import ROOT
from tests.report.test_report import commands

# Last on a command line, they win: what README tells takes minutes or hours.
SHORTER = {
    "train.py": "--epoch 1 --steps_per_epoch 1 --batch_size 1 --patch_size 64 --N 8 --M 12",
    "test.py": "--dataset_path data/kodak --lmbda 0.0067",
}
# They need a GPU, a network, weights of CompressAI, or are what runs this test.
LEFT_OUT = ("--gpu_id", "torchrun", "compressai:", "pth.tar", "pytest", "tests.conformance")
PROGRAM = """
import json, runpy, sys
for words in json.load(sys.stdin):
    module, sys.argv = words[0] == "-m", words[words[0] == "-m":]
    try:
        (runpy.run_module if module else runpy.run_path)(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{words}: {end.code}"
"""


def chosen() -> list[list[str]]:
    """The commands that run anywhere, each made short."""
    lines = []
    for words in commands(ROOT / "README.md"):
        line = " ".join(words)
        if words[0] == "python" and not any(part in line for part in LEFT_OUT):
            line = line.replace("--effort 100", "--effort 2")
            lines.append(f"{line} {SHORTER.get(words[1], '')}".split()[1:])
    return lines


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy(source, target)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


@pytest.fixture
def clone(tmp_path):
    """The files of this repository, with photographs where the pages suppose them."""
    folder = tmp_path / "clone"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone of git")
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    places = ["photo.png", *(f"{part}/{n}.png" for part in ("data/kodak", "data/train", "photos")
                             for n in ("a", "b"))]  # fmt: skip
    for seed, place in enumerate(places):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / place, to_uint8(image(96, 80, seed)))
    return folder


def test_commands_run_and_leave_the_clone_as_it_was(clone):
    before = state(clone)
    end = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=clone, input=json.dumps(chosen()),
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert end.returncode == 0, end.stderr[-2000:]
    after = state(clone)
    assert {name: after.get(name) for name in before} == before
    new = subprocess.run(
        ["git", "check-ignore", "--stdin", "--no-index"], cwd=clone, capture_output=True,
        input="\n".join(after.keys() - before.keys()), text=True,
    )  # fmt: skip
    assert set(new.stdout.splitlines()) == after.keys() - before.keys()
