"""What every test stands on: a private cache, the test data, no network, a fair share of the cores."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

TestData = Callable[[str], Path]

settings.register_profile("glassgpt", deadline=None, derandomize=True)
settings.load_profile("glassgpt")


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module, and so torch, is imported; workers and subprocesses inherit it."""
    if not is_worker(config):
        cache = tempfile.mkdtemp(prefix="glassgpt-test-cache-")
        os.environ["GLASSGPT_CACHE"] = cache  # never the user's own
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    tiktoken_cache = data_folder() / "tiktoken"
    if tiktoken_cache.is_dir():
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(tiktoken_cache))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Tiny models gain nothing from a second thread, and on a busy machine its threads wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.addaudithook(refuse_network)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # ignored under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that read the test data, directly or through another fixture, so that `-m data` selects them."""
    for item in items:
        if "test_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def data_folder() -> Path:
    """The folder of the test data; one that does not exist where the variable is not set."""
    return Path(os.environ.get("GLASSGPT_TEST_DATA", "test-data-not-given")).absolute()


def refuse_network(event: str, args: tuple[object, ...]) -> None:
    """An audit hook: connections leave this machine for no test. Local ones (a server under test) are let through."""
    if event != "socket.connect":
        return
    address = args[1]
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"tests use no network, but this one connects to {address[0]}")


@pytest.fixture(scope="session")
def test_data() -> TestData:
    """`test_data("tinyshakespeare.txt")` is that file or folder of GLASSGPT_TEST_DATA; skips the test without it."""

    def find(name: str) -> Path:
        path = data_folder() / name
        if not path.exists():
            pytest.skip(f"needs test data: set GLASSGPT_TEST_DATA to a folder with {name}")
        return path

    return find


@pytest.fixture(scope="session")
def text() -> str:
    """Sentences of a few words again and again: learnable, and long enough for every test."""
    draw = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "many", "dogs", "ran", "home", "to", "eat", "and", "sleep"]
    return "".join(" ".join(draw.choices(words, k=6)).capitalize() + ".\n" for _ in range(500))
