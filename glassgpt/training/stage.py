"""The `Stage` protocol: what to train. The session and the loop define how, the same way for every stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from glassgpt.models import AnyModel
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.losses import Loss, MicroBatch


@dataclass(frozen=True)
class Best:
    """The figure of `Stage.validate` by which checkpoints are compared."""

    figure: str  # "val/loss"
    mode: Literal["min", "max"] = "min"

    def improves(self, value: float, on: float | None) -> bool:
        """Whether `value` is better than `on`, the best so far. Anything is better than NaN or no value at all."""
        if on is None or math.isnan(on):
            return not math.isnan(value)
        return value < on if self.mode == "min" else value > on


ARROW = " → "  # at the end of a sample's prompt that is a source, before what was written for it


@dataclass(frozen=True)
class Sample:
    """What a model wrote after a prompt."""

    prompt: str
    text: str
    pieces: Sequence[tuple[str, float]] = ()  # the text by tokens, each with its loss in nats; () if not measured


class Stage(Protocol):
    """What is trained: pretraining, fine-tuning on examples, a reward model, preferences, reinforcement learning.

    A stage has a model, defines its batches and its loss, and validates. Every rank of a job has its own stage and
    calls every method.
    """

    tokenizer: Tokenizer
    best: Best
    in_parts: bool  # whether the loss calls `features` and `head` instead of the model itself
    batches_ahead: bool  # whether `batches` depends on (seed, step) alone, and may run in a thread one step ahead

    @property
    def model(self) -> AnyModel:
        """The raw module that is trained and saved, including additions of the stage, such as a reward head.

        Parameters that the loss does not use must not require a gradient.
        """

    def batches(self, step: int) -> Sequence[MicroBatch]:
        """This rank's micro-batches of a step, on the device of the runtime: at least one, and as many on every rank.

        They depend only on (seed, step) and on `state`. Rollouts may be sampled from the current model.
        """

    def loss(self, model: Any, batch: Any) -> Loss:
        """The loss of a micro-batch. `model` is the stage's model, possibly compiled.

        torch's random numbers are seeded for dropout alone, and only if the model has it. A loss that draws others
        takes them from a generator of its own.
        """

    def validate(self, whole: bool) -> Mapping[str, float]:
        """Metrics by name, including that of `best`: on all held-out data if `whole`, else on a quick subset.

        It changes neither the model nor any random state, and returns the same values on every rank.
        """

    def sample(self, step: int) -> Sample | None:
        """A sample of the model's output at this step, under the same rules as `validate`. None if there is none."""

    def describe(self) -> str:
        """One readable line: what data the stage trains and validates on."""

    def save_data(self, folder: Path) -> None:
        """Writes into a new run folder what a resumed run needs to find the same data. Called on the first rank."""

    def state(self) -> Mapping[str, Tensor]:
        """What the next batches depend on besides (seed, step): in reinforcement learning, the current rollouts.

        It is saved in every resumable checkpoint. It describes the entire job and is the same on every rank, so that
        any number of ranks can resume from it.
        """

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`, on every rank."""
