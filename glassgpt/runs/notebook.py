"""Progress of training in the output of a notebook's cell."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from glassgpt.runs.console import PlainListener
from glassgpt.runs.listener import RunInfo
from glassgpt.training.fit import TrainState
from glassgpt.training.metrics import Line

REFRESH = 0.25  # least seconds between two updates: each is a message to the browser
LINES = 400  # kept in the output


def build_listener() -> PlainListener:
    """A NotebookListener if a notebook's kernel runs this process, else a PlainListener."""
    return NotebookListener() if in_notebook() else PlainListener()


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel. In IPython's terminal, there is a shell but no kernel."""
    if "IPython" not in sys.modules:  # not installed, or not running
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


class NotebookListener(PlainListener):
    """A progress bar with the newest figures, and the lines of a PlainListener below it, in one HTML output."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._state, self._total = TrainState(), 0
        self._figures = ""
        self._training = False
        self._output: Any = None  # IPython's handle of the output; None until there is something to show
        self._refreshed = 0.0

    def say(self, line: str) -> None:
        self._lines = [*self._lines[1 - LINES :], line]
        self._refresh()

    def started(self, info: RunInfo, state: TrainState) -> None:
        self._state, self._total, self._training = state, info.config.training.max_steps, True
        super().started(info, state)

    def stepped(self, state: TrainState, record: Line) -> None:
        self._state = state
        if "skipped" in record:
            self.say(f"step {state.step}: skipped, {record['skipped']}")
        else:
            self._figures = f"{self.figures(record)}  eta {self._eta(state)}"
        self._refresh()

    def replanned(self, step: int, steps: int) -> None:
        super().replanned(step, steps)
        self._total = steps

    def stopped(self) -> None:
        self._training = False
        self._refresh()

    def _refresh(self) -> None:
        """Updates the output; while training, not more often than every REFRESH seconds."""
        if self._training and time.monotonic() - self._refreshed < REFRESH:
            return
        self._refreshed = time.monotonic()
        from IPython.display import HTML, display

        html = HTML(self.html())
        if self._output is None:
            self._output = display(html, display_id=True)
        else:
            self._output.update(html)

    def html(self) -> str:
        """The output. Its colours are those of the notebook's theme."""
        bar = ""
        if self._total:
            step = self._state.step
            bar = (
                f'<progress value="{step}" max="{self._total}" style="width: 100%"></progress>'
                f"<div>step {step:,} of {self._total:,} &nbsp; {escape(self._figures)}</div>"
            )
        lines = escape("\n".join(self._lines))
        return f'{bar}<pre style="max-height: 20em; overflow: auto; white-space: pre-wrap">{lines}</pre>'
