"""Checkpoints: folders of safetensors and JSON files, written atomically.

checkpoints/step-00000500/
    model.safetensors       the weights
    optimizer.safetensors   the optimizer's state, by parameter; only in a resumable checkpoint
    stage.safetensors       what the next batches depend on, such as rollouts; only if the stage has such a state
    state.json              step, tokens seen, score, loss scale, checksums
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.files import discard_folder, replacing_folder, write_text
from glassgpt.runtime.distributed import ALONE, Ranks
from glassgpt.runtime.parallel import distribute, full_tensor
from glassgpt.training.stage import Best

FORMAT = 1
MODEL, OPTIMIZER, STAGE = "model.safetensors", "optimizer.safetensors", "stage.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. `state` is the dict passed to `write_checkpoint`, including `step`."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @property
    def resumable(self) -> bool:
        return (self.path / OPTIMIZER).exists()

    @property
    def best(self) -> Best:
        """The figure by which the checkpoints of this run are compared."""
        found = self.state.get("best")
        return Best("val/loss") if found is None else Best(**found)  # runs made before stages had only this one

    @property
    def score(self) -> float | None:
        """The value of that figure. None if it was not measured or is not finite: comparisons with NaN mean nothing."""
        score = self.state.get("score", self.state.get("val_loss"))  # its name before stages existed
        return score if score is not None and math.isfinite(score) else None


Files = dict[str, dict[str, Tensor]]  # tensors by name, by file


def gather_checkpoint(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    ranks: Ranks = ALONE,
    *,
    stage_state: Mapping[str, Tensor] | None = None,
) -> Files:
    """The contents of a checkpoint as full tensors on the first rank; empty on the others, which must call it too.

    Without an optimizer, only the weights.
    """
    files = {MODEL: _gather(model.state_dict(), ranks)}
    if optimizer is not None:
        files[OPTIMIZER] = _gather(optimizer_tensors(model, optimizer), ranks)
        if stage_state:
            # Copies: a stage may return several views of one tensor, which safetensors refuses.
            files[STAGE] = {name: value.clone() for name, value in _gather(stage_state, ranks).items()}
    return files


def _gather(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    gathered: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = full_tensor(tensor)
        if ranks.first:
            gathered[name] = value.cpu() if ranks.several else value
    return gathered


def write_checkpoint(folder: Path, files: Files, state: dict[str, Any]) -> Checkpoint:
    """Writes `folder/step-…` for `state["step"]` atomically. Raises UserError if it cannot be written.

    A kill or a full disk at any moment leaves the checkpoints of earlier steps intact.
    """
    target = folder / f"step-{state['step']:08d}"
    state = {"format": FORMAT, **state}
    try:
        # The same step may exist already: the same weights, perhaps without the optimizer.
        with replacing_folder(target) as temporary:
            for file, tensors in files.items():
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / file)
            state["checksums"] = {file.name: _checksum(file) for file in sorted(temporary.iterdir())}
            state["checksums"][STATE] = _state_checksum(state)
            (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"cannot save {target}: {_reason(error)}; earlier checkpoints are intact: free some disk space, then run"
            " the same command with --resume"
        ) from None
    return Checkpoint(target, state)


def record_score(checkpoint: Checkpoint, score: float | None) -> None:
    """Sets the score of a checkpoint that was already written, or removes it (None)."""
    state = {**checkpoint.state, "score": score}
    state["checksums"] = {**state["checksums"], STATE: _state_checksum(state)}
    write_text(checkpoint.path / STATE, json.dumps(state, indent=1) + "\n")


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """All complete checkpoints in `folder`, sorted by step. Raises UserError if the state of one cannot be read."""
    paths = sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name))
    return sorted((Checkpoint(path, _read_state(path)) for path in paths), key=lambda checkpoint: checkpoint.step)


def load_model_weights(checkpoint: Checkpoint, model: nn.Module, ranks: Ranks = ALONE) -> None:
    """Copies the weights into `model`; the first rank reads them, every rank must call it.

    Raises UserError for a damaged file or tensors that do not fit the model.
    """
    expected = model.state_dict()
    tensors: dict[str, Tensor] = {}
    ranks.on_first(lambda: tensors.update(_load_fitting(checkpoint, expected)))
    for name, target in expected.items():
        tensor = tensors[name] if ranks.first else torch.empty(target.shape, dtype=target.dtype)
        target.copy_(distribute(tensor.to(target.dtype), target, ranks))


def _load_fitting(checkpoint: Checkpoint, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = _load_tensors(checkpoint, MODEL)
    for name in sorted(expected.keys() ^ tensors.keys()):
        raise UserError(f"{checkpoint.path / MODEL}: tensor {name} is {'missing' if name in expected else 'extra'}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{checkpoint.path / MODEL}: tensor {name} is {tuple(tensor.shape)},"
                f" the config says {tuple(expected[name].shape)}"
            )
    return tensors


def load_optimizer_state(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks = ALONE
) -> None:
    """Restores the optimizer state, on the device of each parameter and sharded like it.

    The first rank reads it, every rank must call it.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in _read_on_first(checkpoint, OPTIMIZER, ranks):
        parameter_name, _, key = name.rpartition("/")
        if parameter_name not in parameters:
            raise UserError(f"{checkpoint.path / OPTIMIZER}: the model has no parameter {parameter_name}")
        parameter = parameters[parameter_name]
        optimizer.state[parameter][key] = distribute(tensor, parameter, ranks)


def load_stage_state(checkpoint: Checkpoint, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """The saved state of the stage, as full CPU tensors on every rank; empty if the checkpoint has none."""
    if STAGE not in checkpoint.state["checksums"]:
        return {}
    state = {}
    for name, tensor in _read_on_first(checkpoint, STAGE, ranks):
        ranks.broadcast(tensor)
        state[name] = tensor
    return state


def _read_on_first(checkpoint: Checkpoint, file: str, ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """Yields name and tensor; the first rank reads the file, the others get empty tensors of that shape and dtype."""
    tensors: dict[str, Tensor] = {}

    def read() -> list[tuple[str, list[int], str]]:
        tensors.update(_load_tensors(checkpoint, file))
        return [(name, list(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items()]

    for name, shape, dtype in ranks.on_first(read):
        empty = None if ranks.first else torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
        yield name, tensors[name] if empty is None else empty


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as a flat dict of `parameter/key`, independent of the order of its groups."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def prune(folder: Path, *, keep_last: int, snapshots: set[int]) -> None:
    """Keeps the last `keep_last` checkpoints resumable, the best and `snapshots` as weights only; deletes the rest.

    A resumed run goes back to the last resumable checkpoint and removes later ones, so the best up to there stays too.
    """
    checkpoints = list_checkpoints(folder)
    resumable = [checkpoint for checkpoint in checkpoints if checkpoint.resumable]
    last = resumable[-1].step if resumable else 0
    best = best_checkpoint(checkpoints), best_checkpoint([found for found in checkpoints if found.step <= last])
    for checkpoint in checkpoints:
        if checkpoint in resumable[-keep_last:]:
            continue
        if checkpoint.step in snapshots or checkpoint in best:
            with _removing(checkpoint.path):
                for file in (OPTIMIZER, STAGE):
                    (checkpoint.path / file).unlink(missing_ok=True)
        else:
            discard(checkpoint.path)


def best_checkpoint(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The checkpoint with the best score, the earliest if several are equal; None if no score was measured."""
    best: Checkpoint | None = None
    for checkpoint in checkpoints:
        score = checkpoint.score
        if score is not None and checkpoint.best.improves(score, on=best.score if best else None):
            best = checkpoint
    return best


def discard(path: Path) -> None:
    """Removes a checkpoint. Raises UserError if it cannot be removed."""
    with _removing(path):
        discard_folder(path)


@contextlib.contextmanager
def _removing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot remove old checkpoint files in {path}: {_reason(error)}; fix that, then continue with --resume"
        ) from None


def _read_state(path: Path) -> dict[str, Any]:
    file = path / STATE
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        found = state["format"]
        if found == FORMAT and state["checksums"][STATE] != _state_checksum(state):
            raise ValueError("its checksum does not match")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); remove the folder {path} to continue without it") from None
    if found != FORMAT:
        raise UserError(f"{file} has format {found}, this version of glassgpt reads format {FORMAT}")
    return dict(state)


def _load_tensors(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    file = checkpoint.path / name
    try:
        if _checksum(file) != checkpoint.state["checksums"].get(name):
            raise UserError(
                f"{file} is damaged: its checksum does not match the one in {STATE}; use another checkpoint, or"
                f" remove the folder {checkpoint.path} to continue without it"
            )
        return load_file(file)
    except (OSError, safetensors.SafetensorError, KeyError) as error:
        raise UserError(f"{file} cannot be read: {_reason(error)}") from None


def _checksum(file: Path) -> str:
    value = 0
    with file.open("rb") as stream:
        while piece := stream.read(1 << 22):
            value = zlib.crc32(piece, value)
    return f"crc32:{value:08x}"


def _state_checksum(state: dict[str, Any]) -> str:
    """Checksum of the state's JSON, excluding the checksum itself."""
    files = {name: value for name, value in state["checksums"].items() if name != STATE}
    return f"crc32:{zlib.crc32(json.dumps({**state, 'checksums': files}).encode()):08x}"


def _reason(error: Exception) -> str:
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error):
        return "no space left on the device"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
