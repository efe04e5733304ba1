"""Files are old or new, whoever is killed when; what is no file is written into, not replaced."""

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest
from filelock import Timeout

from models import files
from models.files import locked, write_bytes
from tests.programs import ROOT, files_in

# What is no file ------------------------------------------------------------------------------


def test_a_pipe_is_written_into(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_bytes(pipe, b"new")
    reader.join()
    assert read == [b"new"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


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


# A folder's lock ------------------------------------------------------------------------------


def test_a_lock_ends_with_its_process(tmp_path):
    script = f"""
from models.files import locked
with locked({str(tmp_path)!r}):
    print(flush=True)
    input()
"""
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(Timeout), locked(tmp_path, wait=False):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for wait in (True, False):
        with locked(tmp_path, wait):
            pass
