"""`make kodak`, from files on this machine in place of the server's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from evaluation.photographs import KODAK, Photograph, is_kodak
from tests.programs import ROOT

NAMES = [f"kodim{k:02}.png" for k in range(1, 25)]


@pytest.fixture
def server(tmp_path) -> Path:
    """A folder with a Makefile and digests, and <folder>/server with the files."""
    (tmp_path / "server").mkdir()
    (tmp_path / "statistics").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    lines = []
    for name in NAMES:
        (tmp_path / "server" / name).write_text(name)
        lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
    (tmp_path / "statistics/kodak.sha256").write_text("".join(lines))
    return tmp_path / "server"


def make_kodak(server: Path) -> int:
    command = ["make", "kodak", f"KODAK_URL=file://{server}"]
    return subprocess.run(command, cwd=server.parent, capture_output=True).returncode


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_images_are_fetched_whole_and_once_and_checked_each_time(server):
    folder, file = server.parent / "data/kodak", server / NAMES[20]
    for damage in (Path.unlink, lambda path: path.write_text("another")):
        damage(file)
        assert make_kodak(server) != 0 and not folder.exists()
    file.write_text(file.name)
    assert make_kodak(server) == 0
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert [path.name for path in folder.parent.iterdir()] == ["kodak"]
    shutil.rmtree(server)
    assert make_kodak(server) == 0
    (folder / NAMES[0]).write_text("another")
    assert make_kodak(server) != 0


def test_the_images_are_known_by_their_digests(tmp_path, monkeypatch):
    assert [line.split()[1] for line in KODAK.read_text().splitlines()] == NAMES
    paths = [tmp_path / name for name in NAMES]
    for path in paths:
        path.write_text(path.name)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in paths]
    monkeypatch.setattr("evaluation.photographs.KODAK", tmp_path / "list")
    (tmp_path / "list").write_text("".join(lines))
    photographs = [Photograph(path.name, path.stem, 768, 512, path, None) for path in paths]
    assert is_kodak(photographs)
    assert not is_kodak(photographs[1:])
    paths[0].write_text("another")
    assert not is_kodak(photographs)
