"""Where the figures of a run can be sent besides its folder: SwanLab, Trackio, Weights & Biases, TensorBoard.

Imports of the libraries are local: none is needed to train. Whatever they raise is for the caller to survive.
"""

from __future__ import annotations

import contextlib
import html
import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from glassgpt.errors import UserError, unknown

TRACKERS = ("swanlab", "trackio", "wandb", "tensorboard")
PROJECT = "glassgpt"  # where the environment names no other, as WANDB_PROJECT does
INIT_SECONDS = 30.0  # to reach a server; the library itself would wait three times as long


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told at the start."""

    name: str  # of the run
    folder: Path
    config: Mapping[str, Any]
    step: int  # after which training begins or goes on
    known_id: str | None = None  # of the record that a resumed run goes on with


class Tracker(Protocol):
    """One record of one run."""

    @property
    def id(self) -> str:
        """By which the record is found again."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Adds figures by their names, finite ones."""

    def log_text(self, name: str, text: str, step: int) -> None:
        """Adds a text."""

    def finish(self) -> None:
        """Ends the record; may wait until all of it is sent."""


def check_tracker(name: str) -> None:
    """Raises UserError for a name that there is not."""
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)


def check_installed(name: str) -> None:
    """Raises UserError where the library of a tracker is missing."""
    if find_spec(name) is None:
        raise UserError(f"the tracker {name} is not installed: pip install {name}, or pip install 'glassgpt[track]'")


def open_tracker(name: str, start: TrackedRun) -> Tracker:
    """Begins a record, or goes on with the one that `start` knows. Raises whatever the library does."""
    return TensorBoard(start) if name == "tensorboard" else InitLogFinish(DIALECTS[name], start)


@dataclass(frozen=True)
class Dialect:
    """What one of the libraries with `init`, `log` and `finish` does its own way."""

    library: str
    text_class: str
    mark_up: Callable[[str], str]  # a text so that it is shown as it is
    init: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # for its Settings class; empty: it has none
    by_name: bool = False  # a record is found again by the run's name, not by an id


DIALECTS = {
    "swanlab": Dialect("swanlab", "Text", str, settings={"terminal": {"proxy_type": "none"}}),
    "trackio": Dialect("trackio", "Markdown", lambda text: indented(text), init={"embed": False}, by_name=True),
    "wandb": Dialect(
        "wandb",
        "Html",
        lambda text: f"<pre>{html.escape(text)}</pre>",
        settings={"console": "off", "init_timeout": INIT_SECONDS},
    ),
}


class InitLogFinish:
    """SwanLab, Trackio and Weights & Biases. Whether they are online is for their own variables, as WANDB_MODE."""

    def __init__(self, dialect: Dialect, start: TrackedRun) -> None:
        self._dialect = dialect
        with stdout_as_stderr():
            self._library = importlib.import_module(dialect.library)
            options: dict[str, Any] = {
                "project": os.environ.get(f"{dialect.library.upper()}_PROJECT", PROJECT),
                "name": start.name,
                "config": dict(start.config),
                **dialect.init,
            }
            if dialect.settings:
                options["settings"] = self._library.Settings(**dialect.settings)
            if start.known_id is not None:
                options["resume"] = "allow"
                options["name" if dialect.by_name else "id"] = start.known_id
            self._run = self._library.init(**options)

    @property
    def id(self) -> str:
        return str(self._run.name if self._dialect.by_name else self._run.id)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        with stdout_as_stderr():
            self._run.log(dict(figures), step=step)

    def log_text(self, name: str, text: str, step: int) -> None:
        shown = getattr(self._library, self._dialect.text_class)(self._dialect.mark_up(text))
        with stdout_as_stderr():
            self._run.log({name: shown}, step=step)

    def finish(self) -> None:
        with stdout_as_stderr():
            self._library.finish()


class TensorBoard:
    """Event files in the run's folder: `tensorboard --logdir runs` shows all runs."""

    id = "tensorboard"  # the folder's name

    def __init__(self, start: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What it has of later steps is forgotten; at step 0 everything comes again.
        purge = None if start.known_id is None else start.step and start.step + 1
        self._writer = SummaryWriter(str(start.folder / self.id), purge_step=purge)
        if start.known_id is None:
            lines = [f"{name} = {value!r}" for name, value in flat(start.config).items()]
            self.log_text("config", "\n".join(lines), start.step)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def log_text(self, name: str, text: str, step: int) -> None:
        self._writer.add_text(name, indented(text), step)

    def finish(self) -> None:
        self._writer.close()


def finite_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl that can be drawn: finite ones, without the step itself."""
    return {
        name: value
        for name, value in record.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"model": {"n_layer": 2}} to {"model.n_layer": 2}."""
    return {f"{section}.{name}": value for section, fields in config.items() for name, value in fields.items()}


def indented(text: str) -> str:
    """A text that Markdown shows as it is."""
    return "    " + text.replace("\n", "\n    ")


def stdout_as_stderr() -> contextlib.AbstractContextManager[Any]:
    """While it lasts, what is printed goes to stderr: these libraries chat, and stdout is for results."""
    return contextlib.redirect_stdout(sys.stderr)
