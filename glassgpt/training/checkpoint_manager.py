"""Which checkpoints a run has while it trains, and keeps: the same answer on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glassgpt.errors import check_least
from glassgpt.runtime.distributed import Ranks
from glassgpt.training.checkpoint import (
    Checkpoint,
    best_checkpoint,
    list_checkpoints,
    load_model_weights,
    load_optimizer_state,
    prune,
    record_val_loss,
    save_checkpoint,
)


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves its state, and what it keeps of it. Raises UserError for a value out of range."""

    every: int = 250  # steps between checkpoints; 0: only the first, the best and the last
    keep_last: int = 2  # how many of the newest checkpoints stay resumable
    snapshots: int = 20  # log-spaced steps whose weights are kept, to see how the model learned

    def __post_init__(self) -> None:
        check_least("checkpoint", self, {"every": 0, "keep_last": 1, "snapshots": 0})


class CheckpointManager:
    """The checkpoints below `folder`. The first rank alone sees the disk; every rank must call every method."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        *,
        keep_last: int,
        snapshots: set[int],
    ) -> None:
        self._folder, self._model, self._optimizer, self._ranks = folder, model, optimizer, ranks
        self._keep_last, self.snapshots = keep_last, snapshots
        self._known: list[Checkpoint] = []
        self._whole: set[int] = set()

    def look(self) -> None:
        """Reads what is there."""

        def read() -> tuple[list[Checkpoint], set[int]]:
            known = list_checkpoints(self._folder)
            return known, {checkpoint.step for checkpoint in known if checkpoint.resumable}

        self._known, self._whole = self._ranks.on_first(read)

    def is_resumable(self, step: int) -> bool:
        """Whether training can go on from that step. `Checkpoint.resumable` would ask this rank's own disk."""
        return step in self._whole

    def find(self, step: int) -> Checkpoint | None:
        """The checkpoint of a step."""
        return next((checkpoint for checkpoint in self._known if checkpoint.step == step), None)

    @property
    def best(self) -> Checkpoint | None:
        """The one with the lowest validation loss."""
        return best_checkpoint(self._known)

    def improves(self, val_loss: float) -> bool:
        """Whether the loss is below that of every checkpoint."""
        best = self.best
        return best is None or best.val_loss is None or val_loss < best.val_loss

    def save(self, facts: dict[str, Any], *, whole: bool) -> None:
        """Writes a checkpoint, with the optimizer where it is `whole`, and removes those that need not be kept."""
        save_checkpoint(self._folder, self._model, self._optimizer if whole else None, facts, self._ranks)
        self._ranks.on_first(lambda: prune(self._folder, keep_last=self._keep_last, snapshots=self.snapshots))
        self.look()

    def record_val_loss(self, checkpoint: Checkpoint, val_loss: float | None) -> None:
        """Changes the validation loss of a checkpoint that is there."""
        self._ranks.on_first(lambda: record_val_loss(checkpoint, val_loss))
        self.look()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes weights and optimizer from a checkpoint."""
        self.load_weights(checkpoint)
        load_optimizer_state(checkpoint, self._model, self._optimizer, self._ranks)

    def load_weights(self, checkpoint: Checkpoint) -> None:
        """Takes the weights alone."""
        load_model_weights(checkpoint, self._model, self._ranks)


def snapshot_steps(max_steps: int, count: int) -> set[int]:
    """About `count` steps from 0 to `max_steps`, spaced evenly in the logarithm: most is learned early.

    Step 0 is always one of them: how a run began can always be looked at.
    """
    if count < 2:
        return {0}
    return {0} | {round(max_steps ** (i / (count - 2))) if count > 2 else max_steps for i in range(count - 1)}
