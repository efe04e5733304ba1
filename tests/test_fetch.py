"""The download of the Kodak images, from a server on this machine with files of its own."""

from __future__ import annotations

import hashlib
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from models import fetch
from models.errors import FetchError


class Server(http.server.ThreadingHTTPServer):
    """Serves `contents`; `ranges`: honour Range; `breaks`: answers that are cut in the middle."""

    def __init__(self, contents: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.ranges, self.breaks = contents, True, 0
        self.requests: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/kodak/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        name, wanted = self.path.rpartition("/")[2], self.headers["Range"]
        self.server.requests.append((name, wanted))
        data = self.server.contents.get(name)
        start = int(wanted[6:-1]) if wanted and self.server.ranges else None
        if data is None:
            return self.send_error(404)
        if start is not None and start >= len(data):
            return self.send_error(416)
        body = data[start or 0 :]
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Length", str(len(body)))
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    contents = {f"kodim0{i}.png": np.random.bytes(100_000 + i) for i in (1, 2)}
    with Server(contents) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def digests(server: Server) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in server.contents.items()}


def fetched(server: Server, folder: Path) -> list[Path]:
    return fetch.fetch(folder, server.url, digests(server), timeout=1)


def test_files_are_fetched_once_and_checked(server, tmp_path, capsys):
    paths = fetched(server, tmp_path / "new")
    assert [p.read_bytes() for p in paths] == list(server.contents.values())
    assert sorted(tmp_path.joinpath("new").iterdir()) == paths  # no part remains
    assert "kodim02.png (2 of 2): 100,002 bytes" in capsys.readouterr().err
    fetched(server, tmp_path / "new")
    assert len(server.requests) == 2
    assert "already there" in capsys.readouterr().err


def test_a_download_goes_on_where_it_stopped(server, tmp_path):
    data = server.contents["kodim01.png"]
    (tmp_path / "kodim01.png.part").write_bytes(data[:70_000])
    assert fetched(server, tmp_path)[0].read_bytes() == data
    assert server.requests[0] == ("kodim01.png", "bytes=70000-")


def test_a_server_that_ignores_ranges_sends_everything(server, tmp_path):
    server.ranges = False
    (tmp_path / "kodim01.png.part").write_bytes(b"x" * 70_000)
    assert fetched(server, tmp_path)[0].read_bytes() == server.contents["kodim01.png"]
    assert len(server.requests) == 2


def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path):
    server.breaks = 2
    assert fetched(server, tmp_path)[0].read_bytes() == server.contents["kodim01.png"]
    assert [r for r in server.requests if r[0] == "kodim01.png"] == [
        ("kodim01.png", None), ("kodim01.png", "bytes=50000-"), ("kodim01.png", "bytes=75000-"),
    ]  # fmt: skip


def test_a_connection_that_always_breaks_keeps_what_arrived(server, tmp_path):
    server.breaks = 99
    with pytest.raises(FetchError, match="in 4 attempts .*run the same command again"):
        fetched(server, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kodim01.png.part"]
    server.breaks = 0
    fetched(server, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("length", [500, 100_001, 200_000])
def test_a_wrong_part_is_fetched_anew(server, tmp_path, length):
    (tmp_path / "kodim01.png.part").write_bytes(b"x" * length)
    assert fetched(server, tmp_path)[0].read_bytes() == server.contents["kodim01.png"]


def test_a_part_that_is_complete_needs_no_second_download(server, tmp_path):
    data = server.contents["kodim01.png"]
    (tmp_path / "kodim01.png.part").write_bytes(data)
    assert fetched(server, tmp_path)[0].read_bytes() == data
    assert [r[0] for r in server.requests].count("kodim01.png") == 1


def test_failures_of_a_download_are_told_in_words(server, tmp_path):
    expected = digests(server)
    server.contents["kodim01.png"] = b"something else"
    with pytest.raises(FetchError, match="another SHA-256 than expected"):
        fetch.fetch(tmp_path, server.url, expected)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FetchError, match=r"nothing\.png cannot be had: 404"):
        fetch.fetch(tmp_path, server.url, {"nothing.png": "0" * 64})
    (tmp_path / "kodim01.png").write_bytes(b"mine")
    with pytest.raises(FetchError, match="another file than expected"):
        fetch.fetch(tmp_path, server.url, expected)
    assert (tmp_path / "kodim01.png").read_bytes() == b"mine"


def test_a_terminal_gets_a_progress_bar(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fetched(server, tmp_path)
    assert "kodim01.png (1 of 2):   0%|" in capsys.readouterr().err


def test_a_list_of_digests_is_read_or_refused(tmp_path):
    (tmp_path / "list").write_text(f"{'A' * 64} *x.png\n\n{'b' * 64}  y.png\n")
    assert fetch.read_digests(tmp_path / "list") == {"x.png": "a" * 64, "y.png": "b" * 64}
    (tmp_path / "list").write_text(f"{'a' * 64}  ../x.png\n")
    with pytest.raises(FetchError, match="is not"):
        fetch.read_digests(tmp_path / "list")
    with pytest.raises(FetchError, match="cannot be read"):
        fetch.read_digests(tmp_path / "nowhere")


def test_the_committed_list_names_the_24_kodak_images():
    names = list(fetch.read_digests(fetch.KODAK_DIGESTS))
    assert names == [f"kodim{i:02d}.png" for i in range(1, 25)]


def test_the_command_line(server, tmp_path):
    (tmp_path / "list").write_text("".join(f"{d}  {n}\n" for n, d in digests(server).items()))
    command = [sys.executable, "-m", "models.images", "fetch-kodak", str(tmp_path / "kodak")]
    command += ["--digests", str(tmp_path / "list"), "--url"]
    done = subprocess.run([*command, server.url], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 images in" in done.stderr and "Warning" not in done.stderr
    assert (tmp_path / "kodak" / "kodim02.png").read_bytes() == server.contents["kodim02.png"]


def test_the_command_line_fails_in_words(tmp_path, capsys):
    (tmp_path / "list").write_text(f"{'a' * 64}  x.png\n")
    arguments = ["fetch-kodak", str(tmp_path / "out"), "--digests", str(tmp_path / "list")]
    assert fetch.main([*arguments, "--url", "no address"]) == 1
    assert "is not an address to fetch from" in capsys.readouterr().err
    (tmp_path / "out").rmdir()
    (tmp_path / "out").touch()
    assert fetch.main([*arguments, "--url", "http://127.0.0.1:9/"]) == 1
    assert "Writing to" in capsys.readouterr().err
