"""Downloads from a server on this machine: checked, and within their deadline."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from glassgpt.data.download import DownloadError, download, fetch

BODY = b"To be, or not to be"
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """`/text` answers, `/hang` never does, `/trickle` sends a byte now and then; anything else is not found."""

    def do_GET(self) -> None:
        if self.path == "/hang":
            self.server.release.wait(10)  # type: ignore[attr-defined]
        elif self.path in ("/text", "/trickle"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            if self.path == "/text":
                self.wfile.write(BODY)
            while self.path == "/trickle" and not self.server.release.wait(0.05):  # type: ignore[attr-defined]
                self.wfile.write(b".")
        else:
            self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.release = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.release.set()  # type: ignore[attr-defined]
        server.shutdown()


def test_a_download_lands_whole(server: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "text.txt"
    download(f"{server}/text", path, sha256=SHA256, seconds=5)
    assert path.read_bytes() == BODY


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"rejected: its sha256 is {SHA256[:12]}"):
        download(f"{server}/text", tmp_path / "text.txt", sha256="0" * 64, seconds=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/hang", "/trickle"])
def test_the_deadline_holds_for_a_server_that_does_not_finish(server: str, path: str) -> None:
    begin = time.monotonic()
    with pytest.raises(DownloadError, match=r"within 0\.2 s|timed out"):
        fetch(server + path, 0.2)
    assert time.monotonic() - begin < 2


def test_the_deadline_holds_for_a_hanging_name_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*args: object, **kwargs: object) -> list[object]:
        over.wait(10)
        raise socket.gaierror("released")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    begin = time.monotonic()
    with pytest.raises(DownloadError, match=r"no answer within 0\.2 s"):
        fetch("http://example.invalid/text", 0.2)
    assert time.monotonic() - begin < 2
    over.set()


def test_the_reason_is_said(server: str) -> None:
    with pytest.raises(DownloadError, match="Not Found"):
        fetch(f"{server}/elsewhere", 5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(DownloadError, match="refused"):
            fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/", 5)
