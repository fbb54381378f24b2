"""Progress of training as plain lines on stderr."""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from collections.abc import Mapping

from glassgpt.errors import counted
from glassgpt.report.figures import duration
from glassgpt.runs.listener import Listener, RunInfo
from glassgpt.training.fit import TrainState
from glassgpt.training.metrics import VALIDATED_ON, Line

UNITS = {
    "val/loss": "loss {:.4f} nats per token",
    "val/bits_per_byte": "{:.4f} bits per byte",
    "val/accuracy": "accuracy {:.1%}",
    "val/exact": "{:.1%} exact",
    "val/edit_distance": "{:.4f} edits per character",
}
KNOWN = {"train/loss"}  # figures that a step's line already shows


class PlainListener(Listener):
    """Plain lines on stderr, for logs and pipes."""

    def say(self, line: str) -> None:
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:  # the reader has ended, as `tee` does after Ctrl-C: go on, so that the run is saved
            discard_stderr()
        except RuntimeError:  # a signal handler interrupted a line; Python forbids the second, nested write
            pass

    def note(self, line: str) -> None:
        self.say(line)

    def started(self, info: RunInfo, state: TrainState) -> None:
        self._max_steps, self._log_every = info.config.training.max_steps, info.config.evaluation.log_every
        self._validating = 0.0  # seconds
        self._first_step, self._began = state.step, time.perf_counter()
        self._validated: tuple[float, int] | None = None  # the newest validation loss, and its step
        for line in info.description:
            self.say(line)

    def stepped(self, state: TrainState, record: Line) -> None:
        if "skipped" in record:
            self.say(f"step {state.step}: skipped, {record['skipped']}")
        elif state.step % self._log_every == 0 or state.step == 1:
            figures = f"{self.figures(record)}  eta {self._eta(state)}"
            self.say(f"step {state.step:>5}/{self._max_steps}  {figures}")

    def replanned(self, step: int, steps: int) -> None:
        self.say(f"step {step}: {steps:,} steps instead of {self._max_steps:,}, to end in time")
        self._max_steps = steps

    def evaluated(self, step: int, figures: Mapping[str, float], seconds: float, final: bool) -> None:
        self._validating += seconds
        if "val/loss" in figures:
            self._validated = figures["val/loss"], step
        over = "whole validation split" if final else "validation"
        self.say(f"step {step}: {over}{describe_figures(figures)}")

    def measured(self, step: int, suite: str, figures: Mapping[str, float], seconds: float) -> None:
        self._validating += seconds
        found = ", ".join(f"{name} {value:.4f}" for name, value in figures.items() if isinstance(value, float))
        self.say(f"step {step}: {suite}, {counted(int(figures['items']), 'item')}: {found}")

    def sampled(self, step: int, prompt: str, text: str) -> None:
        self.say(f"step {step} writes:\n" + indent(prompt + text))

    def figures(self, record: Line) -> str:
        """The figures of one step in one line, without the time that remains."""
        parts = [f"loss {record['train/loss']:.4f}"]
        if self._validated is not None:
            loss, step = self._validated
            parts.append(f"val {loss:.4f} @{step}")
        others = {name: value for name, value in record.items() if name.startswith("train/") and name not in KNOWN}
        parts += [f"{name.removeprefix('train/')} {value:.4f}" for name, value in others.items()]
        parts += [
            f"lr {record['lr']:.2e}",
            f"grad {record['grad_norm']:.2f}",
            f"{record['tokens_per_second']:,.0f} tok/s",
        ]
        if "mfu" in record:
            parts.append(f"mfu {record['mfu']:.1%}")
        parts.append(f"val time {self._validation_share():.0%}")
        return "  ".join(parts)

    def _validation_share(self) -> float:
        spent = time.perf_counter() - self._began
        return self._validating / max(spent, 1e-9)

    def _eta(self, state: TrainState) -> str:
        done = state.step - self._first_step
        left = self._max_steps - state.step
        return duration(round((time.perf_counter() - self._began) / max(done, 1) * left))


def discard_stderr() -> None:
    """Sends stderr to the null device from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def describe_figures(figures: Mapping[str, float]) -> str:
    """Validation figures as text, with known units."""
    counts = "".join(f", {counted(int(figures[name]), word)}" for name, word in VALIDATED_ON.items() if name in figures)
    return f"{counts}: " + ", ".join(
        UNITS[name].format(value) if name in UNITS else f"{name.removeprefix('val/')} {value:.4f}"
        for name, value in figures.items()
        if name not in VALIDATED_ON
    )


def indent(text: str, first: str = "    ") -> str:
    """Indents a text by four columns, so that a sample is not mistaken for a message.

    Control characters, which a model can generate and a terminal would obey, become "�".
    """
    shown = (c if c in "\n\t" or unicodedata.category(c) != "Cc" else "�" for c in text.strip("\n"))
    return first + "".join(shown).replace("\n", "\n    ")
