"""Files that are either old or new, never half written."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` if the block succeeds.

    The temporary file is flushed to the disk before the rename, so that a crash at any
    moment leaves either the old file or the new one. On an exception nothing remains, and what
    killed processes left in the folder is removed. A file that is replaced keeps its mode; of a
    link the target is replaced. A device or a pipe is not replaced: `path` itself is yielded.

    The block writes into the file that it finds: another in its place would not be locked, and
    the lock tells other processes that its writer lives.

    Errors: `OSError` of the file system (a full disk, a missing permission).
    """
    path, mode = Path(path), None
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
    if mode is not None and not stat.S_ISREG(mode):
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:  # around the creation too: Ctrl-C may come at any moment
        with _create(temporary) as file:
            yield temporary
            os.fsync(file.fileno())
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _create(path: Path) -> io.FileIO:
    """A new file, open and locked."""
    while True:
        file = io.FileIO(path, "x")
        with suppress(OSError):  # a file system without locks: nothing is swept on it
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # swept before it was locked


def sweep(folder: Path) -> None:
    """Remove the temporary files of `atomic_write` that no living writer holds a lock on."""
    with suppress(OSError), os.scandir(folder) as entries:  # there is none, or it is not listed
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                # It may be gone by now, locked, or another user's.
                with suppress(OSError), io.FileIO(entry.path, "r+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


_sweep_once = cache(sweep)  # before the first file that a process writes: a folder may hold many


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def csv_text(rows: Iterable[Mapping], columns: Iterable[str]) -> str:
    """Rows as the text of a CSV file with Unix line ends."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def printable(name: object) -> str:
    """A stranger's text, such as a file's name, fit to be printed and stored: `a\\x1b[0m.png`.

    Bytes that are not UTF-8, line ends, escape sequences of a terminal and all else that is not
    printable become backslash escapes. What has been made printable stays as it is.
    """
    text = str(name)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def locked(folder: str | Path, wait: bool = True) -> Iterator[None]:
    """Hold a folder's lock, both made if needed; it ends with the process at the latest.

    Errors: `BlockingIOError` if another holds it and `wait` is False.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, "Another process uses the folder", folder) from None
    try:
        yield
    finally:
        lock.release()
