"""What wants to hear how training goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glassgpt.runs.config import RunConfig
from glassgpt.training.fit import TrainState
from glassgpt.training.metrics import Line


@dataclass(frozen=True)
class RunInfo:
    """What a listener is told about a run before its loop begins. A plain value: nothing in it changes later."""

    folder: Path
    config: RunConfig
    n_parameters: int
    description: tuple[str, ...]  # lines for people: what is trained, on what, and how


class Listener:
    """What wants to hear how training goes. Every method may be left as it is: silence."""

    def note(self, line: str) -> None:
        """One line that the user should know: a choice made, a fallback."""

    def started(self, info: RunInfo, state: TrainState) -> None:
        """The loop is about to begin, or to go on, at `state`."""

    def stepped(self, state: TrainState, record: Line) -> None:
        """A step is done; `record` is its line of metrics.jsonl."""

    def evaluated(self, step: int, figures: Mapping[str, float], seconds: float, final: bool) -> None:
        """What the stage measured on held-out data after `step` steps; `final` is on all of it. It took `seconds`."""

    def measured(self, step: int, suite: str, figures: Mapping[str, float], seconds: float) -> None:
        """What a suite of `evaluation.suites` found after `step` steps, in `seconds`."""

    def sampled(self, step: int, prompt: str, text: str) -> None:
        """What the model writes after `step` steps."""

    def stopped(self) -> None:
        """The loop is over, finished or not."""
