"""Keeps a run that has to end in time (`--minutes`) at its plan: asks a few times how many steps still fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LOOKS = 10  # at the clock, evenly over the steps
TOLERANCE = 0.03  # of the whole time: a plan that misses its end by less is kept


@dataclass
class Pace:
    """Compares the time that steps take with the time that is left. `clock` gives seconds, as `time.monotonic`."""

    seconds: float  # of the whole run
    deadline: float  # on the clock: when the last step should be done
    most_steps: int | None = None  # more would not make the model better; None: no limit
    clock: Callable[[], float] = time.monotonic

    def to_json(self) -> dict[str, Any]:
        """The limits, for the clock of the same machine."""
        return {"seconds": self.seconds, "deadline": self.deadline, "most_steps": self.most_steps}

    def start(self) -> None:
        """Training begins now."""
        self._step, self._first = 0, self.clock()
        self._last = self._first

    def is_due(self, step: int, max_steps: int) -> bool:
        """Whether to look at the clock after `step` updates. It depends on steps alone, so it is so on every rank."""
        return self._step + max(1, max_steps // LOOKS) <= step < max_steps

    def look(self, step: int, max_steps: int) -> int:
        """The number of steps, in all, that end in time; `max_steps` if that is close enough.

        A step is expected to take the mean of what it took since the start, which has less noise, and since the last
        look, which is newer.
        """
        now = self.clock()
        newer, whole = (now - self._last) / (step - self._step), (now - self._first) / step
        each = max(1e-9, (newer + whole) / 2)
        fitting = step + max(1, int((self.deadline - now) / each))
        if self.most_steps is not None:
            fitting = max(step + 1, min(fitting, self.most_steps))
        missed = abs(fitting - max_steps) * each
        return fitting if missed > TOLERANCE * self.seconds else max_steps

    def looked(self, step: int) -> None:
        """Notes, on every rank, that the clock was read after `step` updates."""
        self._step, self._last = step, self.clock()
