"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from glassgpt.errors import UserError


@dataclass(frozen=True)
class ScheduleConfig:
    """The shape of the learning rate between its warm-up and its floor.

    `cosine`    warm-up, then half a cosine from the peak to `min_lr` at `decay_steps` (Loshchilov & Hutter 2017).
    `constant`  warm-up, then the peak for ever.
    `wsd`       warm-up, stable at the peak, then a straight line to `min_lr` over the last `cooldown_steps` before
                `decay_steps` (Hu et al. 2024, MiniCPM, section 4). 0 is a fifth of `decay_steps`: Hägele et al. 2024
                ("Scaling laws and compute-optimal training beyond fixed training durations") find 10 to 20 % enough.

    `decay_steps` is 0 for "as long as training.max_steps"; a run's own config.toml always holds the numbers, so that
    a run made longer later keeps the schedule it began with.
    """

    name: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup_steps: int = 100
    decay_steps: int = 0
    cooldown_steps: int = 0
    min_lr: float = 1e-4

    def __post_init__(self) -> None:
        for field in ("warmup_steps", "decay_steps", "cooldown_steps", "min_lr"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise UserError(f"schedule.{field} = {getattr(self, field)} is out of range: it must be at least 0")


def cooldown_steps(config: ScheduleConfig) -> int:
    """How many of the last steps of a `wsd` schedule decay: as the config says, or a fifth of all."""
    return config.cooldown_steps or max(1, config.decay_steps // 5)


def learning_rate(step: int, peak: float, config: ScheduleConfig) -> float:
    """The rate for the update that follows `step` updates. Beyond `decay_steps` it stays at the floor."""
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.name == "constant":
        return peak
    if step >= config.decay_steps:
        return config.min_lr
    stable_until = config.decay_steps - cooldown_steps(config) if config.name == "wsd" else 0
    begin = max(config.warmup_steps, stable_until)  # of the decay
    if step < begin:
        return peak
    done = (step - begin) / (config.decay_steps - begin)  # from 0 to 1 at decay_steps
    shape = 0.5 * (1 + math.cos(math.pi * done)) if config.name == "cosine" else 1 - done
    return config.min_lr + shape * (peak - config.min_lr)
