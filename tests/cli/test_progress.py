"""The live progress on a terminal never ends a training run."""

from __future__ import annotations

import errno
import io

import pytest
from rich.console import Console

from glassgpt.cli.output import redraws
from glassgpt.cli.progress import RichListener, build_listener
from glassgpt.runs.console import PlainListener


class Stream(io.StringIO):
    """A terminal of which every write fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_a_line_inside_an_interrupted_line_is_dropped() -> None:
    """The handler of Ctrl-C or SIGHUP says that training stops; if it interrupts a write, its own one is refused."""
    reentrant = RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")
    RichListener(Console(file=Stream(reentrant), force_terminal=True)).note("finishing this step, then saving")
    with pytest.raises(RuntimeError, match="a mistake"):
        RichListener(Console(file=Stream(RuntimeError("a mistake")), force_terminal=True)).note("…")


def test_a_terminal_that_has_closed_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bool] = []
    monkeypatch.setattr("glassgpt.cli.progress.discard_stderr", lambda: left.append(True))
    RichListener(Console(file=Stream(OSError(errno.EIO, "gone")), force_terminal=True)).note("…")
    assert left == [True]


def test_colours_that_are_forced_make_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in Jupyter's kernels
    assert Console(stderr=True).is_terminal and not redraws(Console(stderr=True))
    assert type(build_listener()) is PlainListener
