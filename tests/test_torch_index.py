"""Where `make setup` gets torch from: a choice that is made in time, is said, and never fails."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "torch_index.py"
spec = importlib.util.spec_from_file_location("torch_index", SCRIPT)
assert spec is not None and spec.loader is not None
torch_index = importlib.util.module_from_spec(spec)
spec.loader.exec_module(torch_index)


class Index(BaseHTTPRequestHandler):
    """`/whl/torch/` lists builds, `/hang/torch/` never answers, and anything else is not found."""

    def do_GET(self) -> None:
        if self.path == "/hang/torch/":
            self.server.release.wait(10)  # type: ignore[attr-defined]
            return
        self.send_response(200 if self.path == "/whl/torch/" else 404)
        self.end_headers()
        self.wfile.write(b"<a href='torch-2.13.0+cpu.whl'>torch</a>")

    def log_message(self, *_: object) -> None:
        """Keeps the test output clean."""


@pytest.fixture
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    httpd.release = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.release.set()  # type: ignore[attr-defined]
    httpd.shutdown()
    httpd.server_close()


def test_linux_without_a_gpu_gets_the_cpu_build(server: str) -> None:
    index, sentence = torch_index.choose(f"{server}/whl", linux=True, gpu=False)
    assert index == f"{server}/whl"
    assert sentence.startswith(f"torch: the CPU build from {server}/whl")


@pytest.mark.parametrize("linux, gpu", [(True, True), (False, False)])
def test_a_gpu_or_another_system_takes_the_registry(server: str, linux: bool, gpu: bool) -> None:
    index, sentence = torch_index.choose(f"{server}/whl", linux=linux, gpu=gpu)
    assert index is None
    assert "from the package registry" in sentence


@pytest.mark.parametrize("path", ["/missing", "/hang"])
def test_an_index_that_does_not_answer_is_left_out_in_time(server: str, path: str) -> None:
    began = time.monotonic()
    index, sentence = torch_index.choose(server + path, linux=True, gpu=False, seconds=0.3)
    assert index is None
    assert "5 GB" in sentence
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("index", ["", "not a URL", "http://127.0.0.1:9/whl"])
def test_the_script_never_fails(index: str) -> None:
    done = subprocess.run([sys.executable, os.fspath(SCRIPT), index], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("torch: from the package registry")
    assert done.stderr.count("\n") == 1
