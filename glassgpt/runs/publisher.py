"""Sends a run's config, figures and samples to trackers. Training continues without a tracker that fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from glassgpt.config import read_json_as
from glassgpt.errors import UserError
from glassgpt.files import write_text
from glassgpt.runs.config import config_sections
from glassgpt.runs.listener import Listener, RunInfo
from glassgpt.training.fit import TrainState
from glassgpt.training.metrics import VALIDATED_ON, Line
from glassgpt.training.trackers import TrackedRun, Tracker, finite_figures, open_tracker

FILE = "trackers.json"


class Publisher(Listener):
    """Forwards events to another listener, and sends them to trackers.

    `sent` is the last step that the trackers of an interrupted run may already have: earlier steps, which are repeated,
    are not sent again. The record ids are saved in the run's folder, so that a resumed run continues the same records.
    """

    def __init__(self, listener: Listener, names: tuple[str, ...], sent: int = 0) -> None:
        self._listener, self._names, self._sent = listener, dict.fromkeys(names), sent
        self._trackers: dict[str, Tracker] = {}
        self._resumed: set[str] = set()

    def note(self, line: str) -> None:
        self._listener.note(line)

    def started(self, info: RunInfo, state: TrainState) -> None:
        self._log_every = info.config.evaluation.log_every
        known = load_ids(info.folder)
        config = config_sections(info.config)
        config["run"]["parameters"] = info.n_parameters
        for name in self._names:
            start = TrackedRun(info.folder.name, info.folder, config, state.step, known.get(name))
            try:
                self._trackers[name] = open_tracker(name, start)
            except Exception as error:
                self.note(f"tracker {name} is off: {first_line(error)}; the run goes on without it")
        self._resumed = known.keys() & self._trackers.keys()
        save_ids(info.folder, known | {name: tracker.id for name, tracker in self._trackers.items()})
        self._listener.started(info, state)

    def stepped(self, state: TrainState, record: Line) -> None:
        if state.step % self._log_every == 0 or state.step == 1:
            self._send(state.step, lambda tracker: tracker.log(finite_figures(record), state.step))
        self._listener.stepped(state, record)

    def replanned(self, step: int, steps: int) -> None:
        self._listener.replanned(step, steps)

    def evaluated(self, step: int, figures: Mapping[str, float], seconds: float, final: bool) -> None:
        shown = {name: value for name, value in figures.items() if name not in VALIDATED_ON}
        named = {f"final/{name}" if final else name: value for name, value in shown.items()}
        self._send(step, lambda tracker: tracker.log(finite_figures(named), step))
        self._listener.evaluated(step, figures, seconds, final)

    def measured(self, step: int, suite: str, figures: Mapping[str, float], seconds: float) -> None:
        named = {f"{suite}/{name}": value for name, value in figures.items()}
        self._send(step, lambda tracker: tracker.log(finite_figures(named), step))
        self._listener.measured(step, suite, figures, seconds)

    def sampled(self, step: int, prompt: str, text: str) -> None:
        self._send(step, lambda tracker: tracker.log_text("sample", prompt + text, step))
        self._listener.sampled(step, prompt, text)

    def stopped(self) -> None:
        self._listener.stopped()
        self._sent = 0
        self._send(0, lambda tracker: tracker.finish())

    def _send(self, step: int, send: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            if step < self._sent and name in self._resumed and name != "tensorboard":  # which purges the repeated steps
                continue
            try:
                send(tracker)
            except Exception as error:
                del self._trackers[name]
                self.note(f"tracker {name} is off from here: {first_line(error)}; the run goes on without it")


def load_ids(folder: Path) -> dict[str, str]:
    """The record ids of a run by tracker, {} if there are none. Raises UserError for a damaged file."""
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        return dict(read_json_as(dict[str, str], path))
    except UserError as error:
        raise UserError(f"{error}: remove it, and the trackers start new records") from None


def save_ids(folder: Path, ids: Mapping[str, str]) -> None:
    """The inverse of `load_ids`."""
    write_text(folder / FILE, json.dumps(ids, indent=1) + "\n")


def first_line(error: Exception) -> str:
    """The message of an error in one line, cut off after 200 characters."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"
