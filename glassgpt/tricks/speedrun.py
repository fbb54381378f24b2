"""The speedrun: how soon a recipe reaches the loss of another, and how far a recipe comes in the other's time.

The control is `char-tiny`, the CPU command of nanoGPT's README in this package. What is timed are whole processes of
`glassgpt train`: the start of Python, reading the tokens, training, the loss on the whole validation split, a
checkpoint, the report. They take turns, one at a time, so that a slow minute of the machine meets all of them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.data.corpora import SHAKESPEARE_SHA256, STDIN, load_text
from glassgpt.data.dataset import sha256_of
from glassgpt.errors import UserError, counted
from glassgpt.runs.config import quiet
from glassgpt.tricks.nanogpt import NANOGPT_LOSS, NanoGPT

CONTROL, FAST, FAR = "char-tiny", "speedrun", "modern-tiny"
COUNTING = 0.4  # weight of counting in the open track, the same for every text
SHARE = 0.9  # of the control's time that the long run plans to take: steps may be slower then than in the trials
TRIALS = (40, 240)  # steps of the two runs that say how long a step takes: nearer ones differ by the noise alone


@dataclass(frozen=True)
class Timed:
    """A whole process, and the loss on the whole validation split with which it ended."""

    seconds: float
    val_loss: float
    steps: int
    curve: tuple[tuple[float, float], ...] = ()  # (seconds since the process began, loss on a part of the split)


@dataclass(frozen=True)
class Round:
    """Every contender once, with one seed."""

    seed: int
    control: Timed
    fast: Timed
    far: Timed  # as many steps as fit into the control's time
    open: Timed  # the same run and, after it, what counting predicts: the seconds of both
    nanogpt: Timed | None


@dataclass(frozen=True)
class Speedrun:
    """What was measured. Losses are in nats per token; ratios compare the two times of the same round."""

    rounds: Sequence[Round]
    given_target: float | None  # None: the control's own loss

    @property
    def target(self) -> float:
        """The loss that counts as arrived."""
        return self.given_target or self.median("control", "val_loss")

    def median(self, contender: str, figure: str) -> float:
        """The median over the rounds."""
        return statistics.median(getattr(getattr(one, contender), figure) for one in self.rounds)

    @property
    def reached(self) -> int:
        """The number of rounds in which the fast recipe arrived."""
        return sum(one.fast.val_loss <= self.target for one in self.rounds)

    @property
    def in_time(self) -> int:
        """The number of rounds in which the long run and its counting took no longer than the control."""
        return sum(one.open.seconds <= one.control.seconds for one in self.rounds)

    def ratio(self, contender: str) -> float:
        """The time of the fast recipe as a share of the contender's, in the median round."""
        return statistics.median(one.fast.seconds / getattr(one, contender).seconds for one in self.rounds)

    def figures(self) -> dict[str, Any]:
        """For `--json`. A claim that the rounds do not support is None."""
        every = len(self.rounds)
        in_time = self.in_time == every
        nanogpt = self.rounds[0].nanogpt is not None
        return {
            "ratio": self.ratio("control") if self.reached == every else None,
            "seconds": self.median("fast", "seconds"),
            "control_seconds": self.median("control", "seconds"),
            "target": self.target,
            "val_loss": self.median("fast", "val_loss"),
            "control_val_loss": self.median("control", "val_loss"),
            "val_loss_at_control_time": self.median("far", "val_loss") if in_time else None,
            "open_val_loss_at_control_time": self.median("open", "val_loss") if in_time else None,
            "ratio_nanogpt": self.ratio("nanogpt") if nanogpt and self.reached == every else None,
            "nanogpt_seconds": self.median("nanogpt", "seconds") if nanogpt else None,
            "rounds": [
                {"seed": one.seed}
                | {name: None if timed is None else vars(timed) for name, timed in vars(one).items() if name != "seed"}
                for one in self.rounds
            ],
        }


def measure_speedrun(
    data: str,
    seeds: Sequence[int],
    *,
    fast: str = FAST,
    far: str = FAR,
    nanogpt: Path | None = None,
    note: Callable[[str], None] = quiet,
) -> Speedrun:
    """Runs every contender once with each seed, in turn. On two cores a round takes about four minutes.

    `fast` is the recipe that is to reach the target, and `far` the one that gets the control's time. `nanogpt` is a
    checkout of karpathy/nanoGPT, which trains on the same text. Raises UserError for a bad text or checkout, and if a
    process fails.
    """
    if data == STDIN:
        raise UserError("every run of the speedrun reads the text again, and stdin can be read once: give a file")
    corpus = load_text(data)
    known = sha256_of(corpus.text) == SHAKESPEARE_SHA256
    with tempfile.TemporaryDirectory(prefix="glassgpt-speedrun-") as scratch:
        folder = Path(scratch)
        peer = None if nanogpt is None else NanoGPT(nanogpt, corpus.text, folder)
        note(f"{corpus.note}: {counted(len(seeds), 'round')}, about 4 minutes each on two cores")
        contest = _Contest(data, fast, far, folder, note)
        for recipe in (fast, far):  # fills the caches of Python, of the tokens and of what was counted
            contest.train(recipe, seeds[0], steps=1)
        rounds = [contest.round(seed, peer) for seed in seeds]
    return Speedrun(rounds, NANOGPT_LOSS if known else None)


@dataclass
class _Contest:
    data: str
    fast: str
    far: str
    folder: Path
    note: Callable[[str], None]

    def round(self, seed: int, peer: NanoGPT | None) -> Round:
        control = self.train(CONTROL, seed)
        fast = self.train(self.fast, seed)
        trials = [self.train(self.far, seed, steps) for steps in TRIALS]
        counting, _ = self.count_too()
        far = self.train(self.far, seed, steps_within(control.seconds * SHARE - counting, trials))
        counting, loss = self.count_too()
        both = Timed(far.seconds + counting, loss, far.steps)
        found = Round(seed, control, fast, far, both, None if peer is None else Timed(*peer.train()))
        for name in ("control", "nanogpt", "fast", "far", "open"):
            if timed := getattr(found, name):
                self.note(
                    f"seed {seed}  {name:8} {timed.seconds:6.1f} s  {timed.val_loss:.4f} after {timed.steps:,} steps"
                )
        return found

    def train(self, recipe: str, seed: int, steps: int | None = None) -> Timed:
        """One whole process of `glassgpt train`, in the same run folder as the one before."""
        command = ["train", recipe, "--data", self.data, "--run", str(self.folder / "run"), "--overwrite"]
        command += ["--seed", str(seed)] + ([] if steps is None else ["--set", f"training.max_steps={steps}"])
        seconds, told = _glassgpt(command)
        return Timed(
            seconds, told["val_loss"], told["steps"], read_curve(self.folder / "run" / "metrics.jsonl", seconds)
        )

    def count_too(self) -> tuple[float, float]:
        """Seconds and loss of the last run together with counting."""
        seconds, told = _glassgpt(
            ["eval", str(self.folder / "run"), "--checkpoint", "last", "--counting", str(COUNTING)]
        )
        return seconds, told["val_loss"]


def steps_within(seconds: float, trials: Sequence[Timed]) -> int:
    """The number of steps whose whole process takes so long, if the time grows in a straight line with the steps."""
    short, long = trials
    step = max(1e-4, (long.seconds - short.seconds) / (long.steps - short.steps))
    start = short.seconds - short.steps * step
    return max(1, int((seconds - start) / step))


def read_curve(metrics: Path, seconds: float) -> tuple[tuple[float, float], ...]:
    """The losses of a run's validations while it trained, each with the seconds since a process of `seconds` began.

    Not every step has a line with its seconds. Between two that have one, time is a straight line.
    """
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    final = next(record for record in records if record.get("final"))
    records.remove(final)
    start = seconds - final["seconds"]  # the session counts its seconds from where it begins to train
    timed = {0: 0.0, final["step"]: final["seconds"]}
    timed |= {record["step"]: record["seconds"] for record in records if "seconds" in record}
    steps = sorted(timed)
    return tuple(
        (start + float(np.interp(record["step"], steps, [timed[step] for step in steps])), record["val/loss"])
        for record in records
        if "val/loss" in record
    )


def _glassgpt(arguments: Sequence[str]) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole process, and what it says as JSON. Raises UserError with its last line if it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "glassgpt", *arguments, "--json"], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        reason = told[0].removeprefix("glassgpt: ")
        raise UserError(f"glassgpt {' '.join(arguments[:2])} failed in the speedrun: {reason}")
    return seconds, json.loads(done.stdout)
