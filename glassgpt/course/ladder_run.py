"""Keeps a trained section of the ladder as a run, which `sample`, `report`, `runs` and `train --resume` open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from glassgpt.costs.flops import count_parameters
from glassgpt.data.dataset import Dataset
from glassgpt.models import Model
from glassgpt.runs.config import RunConfig
from glassgpt.runs.folder import new_run_folder
from glassgpt.runs.pretraining import Pretraining
from glassgpt.runtime.device import Runtime
from glassgpt.training.checkpoint import write_checkpoint
from glassgpt.training.fit import TrainState
from glassgpt.training.metrics import Line, RunLog


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
