"""Downloading a list of files whose SHA-256 digests are known: the 24 Kodak test images.

Run as `python -m models.images fetch-kodak DIR`. A file that was cut off stays as `NAME.part`
and is continued by the next run; a file gets its name only after its digest was found right.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import FetchError

KODAK_URL = "http://r0k.us/graphics/kodak/kodak/"  # Rich Franzen's mirror, which papers cite
KODAK_DIGESTS = Path(__file__).resolve().parent.parent / "statistics" / "kodak.sha256"
ATTEMPTS = 4  # per file, each going on where the last one broke off
CHUNK = 1 << 16  # bytes
TIMEOUT = 30.0  # seconds without an answer
# Not worth another attempt; every other OSError is the network's.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def read_digests(path: str | Path) -> dict[str, str]:
    """File name -> SHA-256 in hexadecimal, from the output format of `sha256sum`. FetchError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise FetchError(f"The list of digests {path} cannot be read: {error.strerror}.") from None
    digests = {}
    for line in filter(str.strip, lines):
        digest, _, name = line.partition(" ")
        name = name.strip().removeprefix("*")
        if len(digest) != 64 or not name or name != Path(name).name:
            raise FetchError(f"{path}: the line {line!r} is not '<SHA-256>  <file name>'.")
        digests[name] = digest.lower()
    return digests


def fetch(
    folder: str | Path, url: str, digests: dict[str, str], timeout: float = TIMEOUT
) -> list[Path]:
    """Download `url` + name for every name that `folder` lacks; return the paths of all.

    Progress goes to standard error: a bar on a terminal, a line per file otherwise. `timeout`
    is in seconds without an answer.

    Errors: `FetchError` if a file cannot be had, has another digest than promised, or if a
    different file of its name is in the way (nothing is overwritten); `OSError` of the disk.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (name, digest) in enumerate(digests.items(), 1):
        path = folder / name
        label = f"{name} ({number} of {len(digests)})"
        if path.exists():
            if _sha256(path) != digest:
                raise FetchError(
                    f"{path} is there but is another file than expected; move it away or delete it."
                )
            _line(f"{label}: already there")
        else:
            _fetch_file(url.rstrip("/") + "/" + name, path, digest, label, timeout)
        paths.append(path)
    return paths


def _fetch_file(url: str, path: Path, digest: str, label: str, timeout: float) -> None:
    """One file, in as many attempts as it takes, through `path` + '.part'. FetchError."""
    part = path.with_name(path.name + ".part")
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(0.2 * 2**attempt, timeout / 10))  # a server that is busy gets a moment
        continued = part.exists() and part.stat().st_size > 0
        try:
            _download(url, part, label, timeout)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):  # asking again will not help
                raise FetchError(f"{url} cannot be had: {error.code} {error.reason}.") from None
            problem = f"{error.code} {error.reason}"
            continue
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise
            problem = str(getattr(error, "reason", error)) or type(error).__name__
            continue
        if _sha256(part) == digest:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(path)
            return
        part.unlink()
        problem = "wrong SHA-256"
        if not continued:  # what was there from an earlier run may have been the wrong part
            raise FetchError(
                f"{url} has another SHA-256 than expected; the server sends a different file."
            )
    raise FetchError(
        f"{url} could not be downloaded in {ATTEMPTS} attempts ({problem}); run the same command "
        "again to go on from here."
    )


def _download(url: str, part: Path, label: str, timeout: float) -> None:
    """Append the rest of `url` to `part`, or write all of it if the server insists on that.

    Errors: OSError and HTTPException of the network, OSError of the disk (`DISK_ERRORS`). What
    has arrived by then stays in `part`.
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, have, timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing lies beyond `have`: either all of it is here, or too much. The digest will tell.
        return
    with response:
        # A server may ignore the range and send everything (200 instead of 206).
        start = f"bytes {have}-"
        resumed = response.status == 206 and (
            response.headers.get("Content-Range", "").startswith(start)
        )
        if not resumed:
            have = 0
        rest = response.headers.get("Content-Length")
        total = have + int(rest) if rest is not None else None
        with part.open("ab" if resumed else "wb") as file, _progress(label, have, total) as bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                bar(len(chunk))
    if total is not None and have < total:
        raise ConnectionError(f"the connection broke off after {have:,} of {total:,} bytes")
    _line(f"{label}: {have:,} bytes" + (" (continued)" if resumed else ""))


def _open(url: str, have: int, timeout: float) -> http.client.HTTPResponse:
    headers = {"User-Agent": "fetch-kodak"} | ({"Range": f"bytes={have}-"} if have else {})
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)


@contextmanager
def _progress(label: str, have: int, total: int | None) -> Iterator:
    """Yield a function of the number of new bytes: a bar on a terminal, otherwise nothing."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(desc=label, initial=have, total=total, unit="B", unit_scale=True, leave=False) as bar:
        yield bar.update


def _line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """The command line of `python -m models.images`. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    kodak = commands.add_parser("fetch-kodak", help="download the 24 Kodak test images (15 MB)")
    kodak.add_argument("folder", metavar="DIR", help="where to put them, such as data/kodak")
    kodak.add_argument("--url", default=KODAK_URL, help="folder to fetch from (%(default)s)")
    kodak.add_argument("--digests", default=KODAK_DIGESTS, metavar="FILE",
                       help="SHA-256 list, as sha256sum prints it (%(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        paths = fetch(options.folder, options.url, read_digests(options.digests))
    except FetchError as error:
        _line(str(error))
        return 1
    except OSError as error:
        _line(f"Writing to {options.folder} failed: {error.strerror or error}.")
        return 1
    except ValueError as error:  # urllib's word for an address that is none
        _line(f"{options.url} is not an address to fetch from: {error}.")
        return 1
    except KeyboardInterrupt:
        _line("Stopped; run the same command again to go on from here.")
        return 130
    _line(f"{len(paths)} images in {options.folder}, all with the expected SHA-256.")
    return 0
