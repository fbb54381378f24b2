"""One small text and one finished run, which the tests share; a test that changes the run works on a copy."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import Command, glassgpt, settings


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models of this size gain nothing from a second thread, and wait long for it where other work goes on."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def end_commands() -> Iterator[None]:
    """Commands that a test has started end with it, whatever happens in it."""
    yield
    while Command.started:
        process = Command.started.pop().process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def start(end_commands: None) -> type[Command]:
    return Command


@pytest.fixture(scope="session")
def text_file(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 steps. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    result = glassgpt("train", "char-tiny", "--data", text_file, "--run", folder, *settings())
    assert result.code == 0, result.err
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to damage or to go on with."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, where `runs/` may appear."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
