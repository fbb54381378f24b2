"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from glassgpt.errors import UserError, check_least


@dataclass(frozen=True)
class ScheduleConfig:
    """The shape of the learning rate from warm-up to minimum.

    `cosine`    warm-up, then half a cosine from the peak to `min_lr` at `decay_steps` (Loshchilov & Hutter 2017).
    `linear`    warm-up, then a straight line from the peak to `min_lr` at `decay_steps`.
    `constant`  warm-up, then the peak for all later steps.
    `wsd`       warm-up, stable at the peak, then linear decay to `min_lr` over the last `cooldown_steps` before
                `decay_steps` (Hu et al. 2024, MiniCPM, section 4). None: a fifth of `decay_steps`; Hägele et al. 2024
                ("Scaling laws and compute-optimal training beyond fixed training durations") find 10 to 20 % enough.

    The config.toml of a run always contains the numbers, so that a run that is extended later keeps its schedule.
    `replanned` is how a run that has to end in time (`training.minutes`) got shorter or longer while it trained.
    """

    name: Literal["cosine", "linear", "constant", "wsd"] = "cosine"  # the shape of the learning rate over the steps
    warmup_steps: int = 100  # steps over which the rate rises from near 0 to `optimizer.lr`
    decay_steps: int | None = None  # the step at which `min_lr` is reached; none: `training.max_steps`
    cooldown_steps: int | None = None  # wsd: length of the decay at the end; none: a fifth of `decay_steps`
    min_lr: float = 1e-4  # the rate at the end of the decay
    replanned: tuple[tuple[int, int], ...] = ()  # [step, steps]: from that step on, the decay ends after so many steps

    def __post_init__(self) -> None:
        check_least("schedule", self, {"warmup_steps": 0, "decay_steps": 1, "cooldown_steps": 1, "min_lr": 0})
        steps = [step for step, _ in self.replanned]
        if steps != sorted(set(steps)) or any(not 0 <= step < end for step, end in self.replanned):
            raise UserError(
                f"schedule.replanned = {list(self.replanned)}: each pair is a step and a later end, in the order of"
                " the steps"
            )

    @property
    def end(self) -> int | None:
        """The step at which the decay ends, as planned last."""
        return self.replanned[-1][1] if self.replanned else self.decay_steps


def cooldown_steps(config: ScheduleConfig) -> int:
    """The number of decay steps at the end of a `wsd` schedule: from the config, or a fifth of `decay_steps`."""
    return config.cooldown_steps or max(1, _decay_steps(config) // 5)


def _decay_steps(config: ScheduleConfig) -> int:
    if config.decay_steps is None:
        raise UserError(f"schedule.decay_steps is not set: a {config.name} schedule needs a number of steps")
    return config.decay_steps


def place_in_plan(step: int, config: ScheduleConfig) -> float:
    """How far the schedule is after `step` updates, in steps of the first plan: `decay_steps` is its end.

    After each change of the plan, what was left of the schedule is spread evenly over the steps that are left. So the
    learning rate never jumps, whatever the shape of the schedule.
    """
    place, since, pace = 0.0, 0, 1.0  # steps of the first plan for each step
    for changed, end in config.replanned:
        if step <= changed:
            break
        place, since = place + pace * (changed - since), changed
        pace = max(0.0, _decay_steps(config) - place) / (end - changed)
    return place + pace * (step - since)


def learning_rate(step: int, peak: float, config: ScheduleConfig) -> float:
    """The learning rate of the update after `step` updates. From the end of the decay on it is `min_lr`."""
    return _planned_rate(place_in_plan(step, config), peak, config)


def _planned_rate(step: float, peak: float, config: ScheduleConfig) -> float:
    """The learning rate at a place in the first plan."""
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.name == "constant":
        return peak
    decay_steps = _decay_steps(config)
    if step >= decay_steps:
        return config.min_lr
    stable_until = decay_steps - cooldown_steps(config) if config.name == "wsd" else 0
    decay_start = max(config.warmup_steps, stable_until)
    if step < decay_start:
        return peak
    done = (step - decay_start) / (decay_steps - decay_start)  # from 0 to 1 at decay_steps
    shape = 0.5 * (1 + math.cos(math.pi * done)) if config.name == "cosine" else 1 - done
    return config.min_lr + shape * (peak - config.min_lr)
