"""A stage: what is trained. How it is trained, the session and the loop decide alike for every stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from glassgpt.models import Model
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.losses import Loss, MicroBatch


@dataclass(frozen=True)
class Best:
    """The figure of `Stage.validate` by which checkpoints are compared."""

    figure: str  # "val/loss"
    mode: Literal["min", "max"] = "min"

    def improves(self, value: float, on: float | None) -> bool:
        """Whether `value` is better than `on`, the best so far."""
        return on is None or (value < on if self.mode == "min" else value > on)


@dataclass(frozen=True)
class Sample:
    """What a model wrote after a prompt."""

    prompt: str
    text: str


class Stage(Protocol):
    """What is trained: pretraining, fine-tuning on examples, a reward model, preferences, reinforcement learning.

    A stage has a model, says what a batch is and what its loss is, and measures. Every rank of a job has its own, and
    calls every method.
    """

    tokenizer: Tokenizer
    best: Best
    in_parts: bool  # whether the loss calls `features` and `head` instead of the model itself

    @property
    def model(self) -> Model:
        """The raw module with all that the stage adds to it, such as a reward head: what is trained and saved.

        Parameters that the loss does not use must not require a gradient.
        """

    def batches(self, step: int) -> Sequence[MicroBatch]:
        """This rank's micro-batches of a step, on the device of the runtime: at least one, and as many on every rank.

        Pure, but for what `state` holds: rollouts may be drawn from the model as it is now.
        """

    def loss(self, model: Any, batch: Any) -> Loss:
        """The loss of a micro-batch. `model` is the stage's own, or the same one compiled."""

    def validate(self, whole: bool) -> Mapping[str, float]:
        """Figures by name, the one of `best` among them: on all held-out data, or on as much as is quick to do.

        It changes neither the model nor any random state, and gives the same figures on every rank.
        """

    def sample(self, step: int) -> Sample | None:
        """Something that the model writes at this step, as `validate` on every rank. None where there is nothing."""

    def describe(self) -> str:
        """One line for people: on what the stage trains and validates."""

    def save_data(self, folder: Path) -> None:
        """Writes into a new run folder what a resumed run needs to find the same data. Called on the first rank."""

    def state(self) -> Mapping[str, Tensor]:
        """What the next batches depend on beside (seed, step): for reinforcement learning the rollouts in use.

        It is saved in every checkpoint that can be resumed from. It describes the whole job and is the same on every
        rank, so that any number of ranks can go on with it.
        """

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`, on every rank."""
