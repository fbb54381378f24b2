"""Sends the metrics of a run to experiment trackers: SwanLab, Trackio, Weights & Biases, TensorBoard.

The libraries are imported locally, because training needs none of them. The caller must handle their exceptions.
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
PROJECT = "glassgpt"  # unless the environment sets another, such as WANDB_PROJECT
INIT_SECONDS = 30.0  # timeout for reaching a server; the library's default is three times as long


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker receives at the start."""

    name: str  # of the run
    folder: Path
    config: Mapping[str, Any]
    step: int  # after which training starts or resumes
    known_id: str | None = None  # of the record that a resumed run continues


class Tracker(Protocol):
    """One record of a run in a tracker."""

    @property
    def id(self) -> str:
        """Identifies the record, to continue it later."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Adds finite metrics by name."""

    def log_text(self, name: str, text: str, step: int) -> None:
        """Adds a text."""

    def finish(self) -> None:
        """Ends the record; may wait until everything is sent."""


def check_tracker(name: str) -> None:
    """Raises UserError for an unknown tracker."""
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)


def check_installed(name: str) -> None:
    """Raises UserError if the library of a tracker is not installed."""
    if find_spec(name) is None:
        raise UserError(f"the tracker {name} is not installed: pip install {name}, or pip install 'glassgpt[track]'")


def open_tracker(name: str, start: TrackedRun) -> Tracker:
    """Starts a record, or continues the one with `start.known_id`. Any exception of the library passes through."""
    return TensorBoard(start) if name == "tensorboard" else InitLogFinish(DIALECTS[name], start)


@dataclass(frozen=True)
class Dialect:
    """The differences between the libraries that have `init`, `log` and `finish`."""

    library: str
    text_class: str
    mark_up: Callable[[str], str]  # makes a text appear unchanged
    init: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # for its Settings class; empty if it has none
    by_name: bool = False  # a record is identified by the run's name, not by an id


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
    """SwanLab, Trackio and Weights & Biases. Their own variables, such as WANDB_MODE, select online or offline."""

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

        # TensorBoard discards its records of later steps; at step 0 all records are written again.
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
    """The plottable numbers of a line of metrics.jsonl: finite ones, without the step itself."""
    return {
        name: value
        for name, value in record.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens {"model": {"n_layer": 2}} to {"model.n_layer": 2}."""
    return {f"{section}.{name}": value for section, fields in config.items() for name, value in fields.items()}


def indented(text: str) -> str:
    """A text indented so that Markdown shows it unchanged."""
    return "    " + text.replace("\n", "\n    ")


def stdout_as_stderr() -> contextlib.AbstractContextManager[Any]:
    """Redirects stdout to stderr: these libraries print messages, and our stdout is for results."""
    return contextlib.redirect_stdout(sys.stderr)
