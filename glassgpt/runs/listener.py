"""Interface for objects that follow the progress of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glassgpt.runs.config import RunConfig
from glassgpt.training.fit import TrainState
from glassgpt.training.metrics import Line


@dataclass(frozen=True)
class RunInfo:
    """Facts about a run, for listeners, before its loop begins. A plain value: nothing in it changes later."""

    folder: Path
    config: RunConfig
    n_parameters: int
    description: tuple[str, ...]  # readable lines: what is trained, on what, and how


class Listener:
    """Receives the events of a training run. By default, every method does nothing."""

    def note(self, line: str) -> None:
        """One line that the user should know: a choice made, a fallback."""

    def started(self, info: RunInfo, state: TrainState) -> None:
        """The loop is about to start, or to resume, at `state`."""

    def stepped(self, state: TrainState, record: Line) -> None:
        """A step is done; `record` is its line of metrics.jsonl."""

    def replanned(self, step: int, steps: int) -> None:
        """After `step` steps: the run, which has to end in time, now gets `steps` steps in all."""

    def evaluated(self, step: int, figures: Mapping[str, float], seconds: float, final: bool) -> None:
        """Validation figures after `step` steps, measured in `seconds`; `final` ones are on all held-out data."""

    def measured(self, step: int, suite: str, figures: Mapping[str, float], seconds: float) -> None:
        """Figures of a suite in `evaluation.suites` after `step` steps, measured in `seconds`."""

    def sampled(self, step: int, prompt: str, text: str) -> None:
        """Text that the model generated after `step` steps."""

    def stopped(self) -> None:
        """The loop has ended, finished or not."""
