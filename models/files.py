"""Files that are either old or new, never half written."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from models.errors import UsageError

LOCK = ".lock"


def check_target(target: Path, source: Path, overwrite: bool) -> None:
    """UsageError unless what is read from `source` may be written to `target`, a file, a device or
    a pipe: nothing is written over its own source, nor over any file unless `overwrite`."""
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError(f"{source} would be written over itself: name another place.")
    if target.is_file() and not overwrite:
        raise UsageError(f"{target} exists: write over it with --overwrite, or name another.")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` if the block succeeds.

    The temporary file is flushed to the disk before the rename, so that a crash leaves the old
    file or the new one, and at most a hidden .tmp file. A replaced file keeps its mode; of a link
    the target is replaced. A device or a pipe is not replaced: `path` itself is yielded. OSError.
    """
    path, mode = Path(path), None
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
    if mode is not None and not stat.S_ISREG(mode):
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(16)}.tmp")
    try:  # around the creation too: Ctrl-C may come at any moment
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)  # which the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def printable(name: object) -> str:
    """A stranger's text, such as a file's name, fit to be printed and stored: `a\\x1b[0m.png`.

    Line ends, escape sequences and bytes that are not UTF-8 become backslash escapes; printable
    text stays as it is.
    """
    text = str(name)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def locked(folder: str | Path, wait: bool = True) -> FileLock:
    """A folder's lock for a `with` block; it ends with the process at the latest.

    The folder is created if needed. `filelock.Timeout` if another holds it and `wait` is False.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(folder) / LOCK, timeout=-1 if wait else 0)
