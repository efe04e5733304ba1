"""Files that are either old or new, never half written."""

from __future__ import annotations

import csv
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` if the block succeeds.

    The temporary file is flushed to the disk before the rename, so that a crash at any
    moment leaves either the old file or the new one. On an exception nothing remains; a process
    that is killed may leave a hidden .tmp file. A file that is replaced keeps its mode; of a link
    the target is replaced. A device or a pipe is not replaced: `path` itself is yielded.

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
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:  # around the creation too: Ctrl-C may come at any moment
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
