"""Keeps a trained section of the ladder as a run, which `sample`, `report`, `runs` and `train --resume` open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from glassgpt.costs.flops import count_parameters
from glassgpt.data.dataset import Dataset
from glassgpt.evaluation.validation import Evaluation
from glassgpt.models import Model
from glassgpt.runs.config import RunConfig
from glassgpt.runs.folder import new_run_folder
from glassgpt.runs.pretraining import Pretraining
from glassgpt.runtime.device import Runtime
from glassgpt.training.checkpoint import write_checkpoint
from glassgpt.training.fit import StepResult, TrainState
from glassgpt.training.metrics import Line, RunLog

MEAN_STEPS = 50  # the final training loss is the mean over this many last steps


class LadderLog:
    """Collects the figures of a training, with the names that a run's metrics.jsonl gives them."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def stepped(self, state: TrainState, result: StepResult, seconds: float) -> None:
        """A step is done, `seconds` after the training began."""
        self.lines.append(
            {
                "step": state.step,
                "tokens_seen": state.tokens_seen,
                "train/loss": result.loss,
                "lr": result.lr,
                "grad_norm": result.grad_norm,
                "tokens_per_second": result.tokens / result.seconds,
                "seconds": seconds,
            }
        )

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """The model was validated on a part of the split after `step` steps."""
        self.lines.append({"step": step, **_figures(evaluation)})

    def finished(self, state: TrainState, evaluation: Evaluation, seconds: float) -> None:
        """The training has ended, and its result was measured."""
        losses = [line["train/loss"] for line in self.lines if "train/loss" in line][-MEAN_STEPS:]
        self.lines.append(
            {
                "step": state.step,
                "final": True,
                "tokens_seen": state.tokens_seen,
                "train/loss": sum(losses) / len(losses),
                **_figures(evaluation),
                "best/step": state.step,
                "best/val/loss": evaluation.loss,
                "seconds": seconds,
            }
        )


def _figures(evaluation: Evaluation) -> dict[str, float]:
    return {
        "val/loss": evaluation.loss,
        "val/bits_per_byte": evaluation.bits_per_byte,
        "val/tokens": evaluation.tokens,
    }


def save_ladder_run(
    folder: Path,
    config: RunConfig,
    model: Model,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    dataset: Dataset,
    runtime: Runtime,
    lines: Sequence[Line],
    sample: str,
) -> None:
    """Writes the run folder, whole or not at all. Raises UserError if it cannot be written."""
    checkpoint: dict[str, Any] = {
        **asdict(state),
        "seconds": lines[-1]["seconds"],
        "best": asdict(Pretraining.best),
        "score": lines[-1]["val/loss"],
        "scaler": {},
    }
    with new_run_folder(folder, config, dataset.tokenizer, runtime, count_parameters(model)) as new:
        dataset.manifest.save(new / "data.json")
        log = RunLog(new, writes=True)
        for line in lines:
            log.add(line)
        log.add({"step": state.step, "prompt": "", "text": sample}, file="samples.jsonl")
        log.close()
        write_checkpoint(new / "checkpoints", model, optimizer, checkpoint)
