"""Files are old or new, whoever is killed when; what is no file is written into, not replaced."""

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from models import files
from models.files import write_bytes
from tests.programs import files_in

# What is no file ------------------------------------------------------------------------------


def test_a_device_is_written_into(tmp_path):
    screen, terminal = os.openpty()
    try:
        link = tmp_path / "link"
        link.symlink_to(os.ttyname(terminal))
        for path in (os.ttyname(terminal), link):
            write_bytes(path, b"new")
            assert os.read(screen, 99) == b"new"
            assert stat.S_ISCHR(os.stat(path).st_mode)
    finally:
        os.close(screen)
        os.close(terminal)


def test_of_a_link_the_target_is_replaced(tmp_path):
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    link.symlink_to("there/target")
    for data in (b"created", b"replaced"):
        write_bytes(link, data)
        assert link.is_symlink() and target.read_bytes() == data
    assert files_in(tmp_path) == ["link", "target"]


@pytest.mark.parametrize("mode", [0o640, 0o444, 0o755])
def test_a_replaced_file_keeps_its_mode(mode, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_bytes(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == b"new"


def test_a_name_may_be_as_long_as_the_system_takes_it(tmp_path):
    write_bytes(tmp_path / ("x" * 255), b"new")
    assert files_in(tmp_path) == ["x" * 255]


def test_a_refusal_is_of_the_file_that_was_named():
    with pytest.raises(OSError, match="/proc/a.png'$"):
        write_bytes("/proc/a.png", b"new")


def test_a_new_file_has_the_usual_mode(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


# Interrupted and killed -----------------------------------------------------------------------


def interrupted_at(moment, path):
    """Whether Ctrl-C at this line, counted from 0 through all that is called, came in time."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        if lines > moment:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        write_bytes(path, b"new")
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_ctrl_c_at_any_moment_leaves_the_old_file_or_the_new(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", lambda handle: None)  # three hundred times
    path, moment, seen = tmp_path / "file", 0, set()
    path.write_bytes(b"old")
    while interrupted_at(moment, path):
        seen.add(path.read_bytes())
        assert files_in(tmp_path) == ["file"], moment
        path.write_bytes(b"old")
        moment += 1
    assert seen == {b"old", b"new"} and moment > 20


def test_of_several_writers_the_last_one_wins_whole(tmp_path):
    contents = [bytes([k]) * 100_000 for k in range(6)]
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(lambda data: write_bytes(tmp_path / "file", data), contents * 5))
    assert (tmp_path / "file").read_bytes() in contents and files_in(tmp_path) == ["file"]
