"""Progress in a notebook: chosen only there, updated in one place, and safe to show."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import glassgpt as gg
from glassgpt.runs import notebook
from glassgpt.runs.console import PlainListener
from glassgpt.runs.notebook import NotebookListener, build_listener


class Output:
    """The output of a cell, as IPython's display handle."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, html: str, *, display_id: bool) -> Output:
        assert display_id
        assert not self.shown
        self.update(html)
        return self

    def update(self, html: str) -> None:
        self.shown.append(html)


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Output:
    """A process in which IPython runs, with the kernel of a notebook."""
    output, ipython, display = Output(), ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    display.display, display.HTML = output.display, str  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(notebook, "REFRESH", 0.0)
    return output


def test_only_a_notebook_gets_it(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(build_listener(), NotebookListener)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: SimpleNamespace())  # IPython in a terminal
    assert type(build_listener()) is PlainListener
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)  # imported by another library
    assert type(build_listener()) is PlainListener
    monkeypatch.delitem(sys.modules, "IPython")
    assert type(build_listener()) is PlainListener


def test_training_fills_the_bar_in_one_output(
    output: Output, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small: dict[str, Any] = {"model.n_layer": 1, "model.n_embd": 16, "model.block_size": 16}
    small |= {"training.batch_tokens": 64, "evaluation.sample_tokens": 5}
    gg.train("char-tiny", text="<b>to be or not to be</b>\n" * 40, run=tmp_path / "run", max_steps=3, settings=small)
    assert capsys.readouterr().err == ""
    bars = [html for html in output.shown if "<progress" in html]
    for step in range(4):
        assert any(f'<progress value="{step}" max="3"' in html for html in bars)
    last = output.shown[-1]
    assert '<progress value="3" max="3"' in last
    for words in ("step 3 of 3", "loss", "step 3 writes:", "whole validation split"):
        assert words in last
    assert "<b>" not in last


def test_it_keeps_the_newest_lines(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "LINES", 3)
    listener = NotebookListener()
    for number in range(5):
        listener.note(f"line {number}")
    assert "line 2\nline 3\nline 4<" in output.shown[-1]
    assert "line 1" not in output.shown[-1]
