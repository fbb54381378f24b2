"""Saves, restores and deletes the checkpoints of a run, consistently on every rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError, check_least
from glassgpt.runtime.distributed import Ranks
from glassgpt.training.checkpoint import (
    Checkpoint,
    best_checkpoint,
    list_checkpoints,
    load_model_weights,
    load_optimizer_state,
    prune,
    record_score,
    write_checkpoint,
)

MOST_SNAPSHOTS = 100_000  # each is a file as large as the model


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves checkpoints, and which it keeps. Raises UserError for a value out of range."""

    every: int = 250  # steps between resumable checkpoints; 0: only the first and the last
    keep_last: int = 2  # how many of the newest checkpoints stay resumable
    snapshots: int = 20  # log-spaced steps whose weights are kept, to study how the model learned

    def __post_init__(self) -> None:
        check_least("checkpoint", self, {"every": 0, "keep_last": 1, "snapshots": 0})
        if self.snapshots > MOST_SNAPSHOTS:
            raise UserError(
                f"checkpoint.snapshots = {self.snapshots} is out of range: it must be at most {MOST_SNAPSHOTS:,}"
            )


class CheckpointManager:
    """The checkpoints in `folder`. Only the first rank reads and writes the disk; every rank calls every method."""

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
        self._resumable: set[int] = set()

    def look(self) -> None:
        """Refreshes the list of checkpoints on disk."""

        def read() -> list[tuple[str, dict[str, Any], bool]]:
            found = list_checkpoints(self._folder)
            return [(checkpoint.path.name, checkpoint.state, checkpoint.resumable) for checkpoint in found]

        found = self._ranks.on_first(read)
        self._known = [Checkpoint(self._folder / name, state) for name, state, _ in found]
        self._resumable = {state["step"] for _, state, resumable in found if resumable}

    def is_resumable(self, step: int) -> bool:
        """Whether training can resume from that step. `Checkpoint.resumable` would check this rank's own disk."""
        return step in self._resumable

    def find(self, step: int) -> Checkpoint | None:
        """The checkpoint of a step, or None."""
        return next((checkpoint for checkpoint in self._known if checkpoint.step == step), None)

    @property
    def best(self) -> Checkpoint | None:
        """The checkpoint with the best score, or None."""
        return best_checkpoint(self._known)

    def save(self, state: dict[str, Any], *, resumable: bool, stage_state: Mapping[str, Tensor]) -> None:
        """Writes a checkpoint, with the optimizer if `resumable`, and deletes checkpoints that are no longer needed."""
        optimizer = self._optimizer if resumable else None
        write_checkpoint(self._folder, self._model, optimizer, state, self._ranks, stage_state=stage_state)
        self._ranks.on_first(lambda: prune(self._folder, keep_last=self._keep_last, snapshots=self.snapshots))
        self.look()

    def record_score(self, checkpoint: Checkpoint, score: float) -> None:
        """Sets the score of an existing checkpoint."""
        self._ranks.on_first(lambda: record_score(checkpoint, score))
        self.look()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Loads weights and optimizer from a checkpoint."""
        self.load_weights(checkpoint)
        load_optimizer_state(checkpoint, self._model, self._optimizer, self._ranks)

    def load_weights(self, checkpoint: Checkpoint) -> None:
        """Loads the weights alone."""
        load_model_weights(checkpoint, self._model, self._ranks)


def snapshot_steps(max_steps: int, count: int) -> set[int]:
    """About `count` log-spaced steps from 0 to `max_steps`, because a model learns most early.

    Step 0 is always included, so that the initial weights can be inspected.
    """
    if count < 2:
        return {0}
    return {0} | {round(max_steps ** (i / (count - 2))) if count > 2 else max_steps for i in range(count - 1)}
