"""Checkpoints: folders of safetensors and JSON files, written atomically.

checkpoints/step-00000500/
    model.safetensors       the weights
    optimizer.safetensors   the optimizer's state, by parameter; only in a resumable checkpoint
    stage.safetensors       what the next batches depend on, such as rollouts; only if the stage has such a state
    state.json              step, tokens seen, score, loss scale, checksums

A set of tensors larger than `tensor_files.MAX_FILE_BYTES` is divided into several files with an index. In both forms a
checkpoint holds whole tensors and does not depend on the number of ranks that wrote it. All ranks write and read it one
tensor at a time, so that no rank ever needs memory for the whole model.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Required, TypeVar

import safetensors
import torch
from torch import Tensor, nn
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from glassgpt.config import Count, Figure, parse_json_as
from glassgpt.errors import UserError, option
from glassgpt.files import check_regular, discard_folder, parse_json, read_file, replacing_folder, write_text
from glassgpt.runtime.distributed import ALONE, Ranks
from glassgpt.runtime.parallel import copy_weight, distribute, full_tensor
from glassgpt.training.optimizers import state_of
from glassgpt.training.stage import Best
from glassgpt.training.tensor_files import (
    StoredTensor,
    TensorReader,
    belongs_to,
    divide,
    index_name,
    index_of,
    write_tensors,
)

T = TypeVar("T")

FORMAT = 1
MODEL, OPTIMIZER, STAGE = "model.safetensors", "optimizer.safetensors", "stage.safetensors"  # sets of tensors
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. `state` is the dict passed to `write_checkpoint`, including `step`."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    def number(self, name: str) -> float:
        """A number of `state`, such as "seconds". Raises UserError if it is missing."""
        if name not in self.state:
            raise UserError(f"{self.path / STATE} is damaged: it has no {name}; use another checkpoint")
        return float(self.state[name])

    @property
    def resumable(self) -> bool:
        return any((self.path / file).exists() for file in (OPTIMIZER, index_name(OPTIMIZER)))

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


class BestFields(TypedDict):
    """The fields of `Best` in state.json."""

    figure: str
    mode: Literal["min", "max"]


class State(TypedDict, total=False):
    """The fields of state.json; a stage may add its own."""

    format: Required[int]
    step: Required[Count]
    checksums: Required[dict[str, str]]
    tokens_seen: Count
    skipped_in_row: Count
    seconds: float
    scaler: dict[str, Any]
    best: BestFields
    score: Figure
    val_loss: Figure  # the score of runs made before stages


def write_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    state: dict[str, Any],
    ranks: Ranks = ALONE,
    *,
    stage_state: Mapping[str, Tensor] | None = None,
) -> Checkpoint:
    """Writes `folder/step-…` for `state["step"]` atomically. Without an optimizer, only the weights.

    Every rank must call it, and the first one writes. It holds the tensors of one file in memory at a time. Raises
    UserError if the checkpoint cannot be written. A kill or a full disk at any moment leaves the checkpoints of earlier
    steps intact.
    """
    sets = {MODEL: model.state_dict()}
    if optimizer is not None:
        sets[OPTIMIZER] = optimizer_tensors(model, optimizer)
        if stage_state:
            # Copies: a stage may return several views of one tensor, which safetensors refuses.
            sets[STAGE] = {name: value.clone() for name, value in stage_state.items()}
    return _write_sets(folder, sets, lambda name, names: _gather(sets[name], names, ranks), state, ranks)


def write_weights(folder: Path, weights: Mapping[str, StoredTensor], state: dict[str, Any]) -> Checkpoint:
    """Writes a checkpoint of weights that are still in other files, in their dtypes; else as `write_checkpoint`."""

    def read(_: str, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: weights[name].read() for name in names}

    return _write_sets(folder, {MODEL: {name: stored.like for name, stored in weights.items()}}, read, state, ALONE)


def _write_sets(
    folder: Path,
    sets: Mapping[str, Mapping[str, Tensor]],
    gather: Callable[[str, Iterable[str]], dict[str, Tensor]],
    state: dict[str, Any],
    ranks: Ranks,
) -> Checkpoint:
    """Writes the files of a checkpoint, one after the other.

    `sets` says of every tensor how large it is. `gather` returns those of a file, by the names of the set and of the
    tensors.
    """
    target = folder / _folder_name(state["step"])
    with contextlib.ExitStack() as held:

        def on_first(work: Callable[[], T]) -> T:
            """Tells every rank of a failure: the others would wait for the next tensor."""

            def reported() -> T:
                with _saving(target):
                    return work()

            return ranks.on_first(reported)

        # The same step may exist already: the same weights, perhaps without the optimizer.
        temporary = Path(on_first(lambda: str(held.enter_context(replacing_folder(target)))))
        for name, tensors in sets.items():
            files = divide(name, tensors)
            for file, names in files.items():
                on_first(partial(write_tensors, temporary / file, gather(name, names)))
            if len(files) > 1:
                on_first(partial(_write_json, temporary / index_name(name), index_of(files, tensors)))

        def complete() -> dict[str, Any]:
            checksums = {file.name: _checksum(file) for file in sorted(temporary.iterdir())}
            full = {"format": FORMAT, **state, "checksums": checksums}
            checksums[STATE] = _state_checksum(full)
            _write_json(temporary / STATE, full)
            held.close()
            return full

        return Checkpoint(target, on_first(complete))


def _gather(tensors: Mapping[str, Tensor], names: Iterable[str], ranks: Ranks) -> dict[str, Tensor]:
    """The named tensors, whole, on the first rank; nothing on the others, which must call it too."""
    gathered: dict[str, Tensor] = {}
    for name in names:
        value = full_tensor(tensors[name])
        if ranks.first:
            gathered[name] = value.cpu() if ranks.several else value
    return gathered


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _saving(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"cannot save {target}: {_reason(error)}; earlier checkpoints are intact: free some disk space, then do"
            f" the same again with {option(resume=True)}"
        ) from None


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
    for name, tensor in _read_on_first(checkpoint, MODEL, ranks, partial(_check_weights, expected)):
        copy_weight(tensor, expected[name], ranks)


def open_weights(checkpoint: Checkpoint, model: nn.Module | None = None) -> TensorReader:
    """The weights, to be read one at a time, in the dtypes of the file.

    Raises UserError for a damaged file, and for tensors that do not fit `model`.
    """
    reader = _open_set(checkpoint, MODEL)
    if model is not None:
        _check_weights(model.state_dict(), reader.shapes, checkpoint.path / MODEL)
    return reader


def _check_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: Path) -> None:
    for name in sorted(expected.keys() ^ found.keys()):
        raise UserError(f"{where}: tensor {name} is {'missing' if name in expected else 'extra'}")
    for name, tensor in found.items():
        like = expected[name]
        if tensor.shape != like.shape:
            raise UserError(f"{where}: tensor {name} is {tuple(tensor.shape)}, the config says {tuple(like.shape)}")
        if tensor.is_floating_point() != like.is_floating_point():
            raise UserError(f"{where}: tensor {name} is {_describe(tensor)}, the model needs {_describe(like)}")


def load_optimizer_state(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks = ALONE
) -> None:
    """Restores the optimizer state, on the device of each parameter and sharded like it.

    The first rank reads it, every rank must call it. Raises UserError for a damaged file or tensors that do not fit the
    parameters: the kernels of the optimizer would read outside of them.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in _read_on_first(checkpoint, OPTIMIZER, ranks, partial(_check_optimizer, parameters, optimizer)):
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        optimizer.state[parameter][key] = distribute(tensor, parameter, ranks)


def _check_optimizer(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, found: Mapping[str, Tensor], where: Path
) -> None:
    keys: dict[str, set[str]] = {}
    for name in found:
        parameter_name, _, key = name.rpartition("/")
        if parameter_name not in parameters:
            raise UserError(f"{where}: the model has no parameter {parameter_name}")
        keys.setdefault(parameter_name, set()).add(key)
    for parameter_name, present in keys.items():
        expected = state_of(optimizer, parameters[parameter_name])
        for key in sorted(expected.keys() ^ present):
            raise UserError(f"{where}: tensor {parameter_name}/{key} is {'missing' if key in expected else 'extra'}")
        for key, like in expected.items():
            tensor = found[f"{parameter_name}/{key}"]
            if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
                raise UserError(
                    f"{where}: tensor {parameter_name}/{key} is {_describe(tensor)}, the optimizer needs"
                    f" {_describe(like)}"
                )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def load_stage_state(checkpoint: Checkpoint, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """The saved state of the stage, as full CPU tensors on every rank; empty if the checkpoint has none."""
    state: dict[str, Tensor] = {}
    if files_of(checkpoint, STAGE):
        for name, tensor in _read_on_first(checkpoint, STAGE, ranks):
            ranks.broadcast(tensor)
            state[name] = tensor
    return state


Check = Callable[[Mapping[str, Tensor], Path], None]  # of tensors on the meta device and the path of their set


def _read_on_first(
    checkpoint: Checkpoint, name: str, ranks: Ranks, check: Check | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a set by name, one at a time, in the same order on every rank.

    The first rank reads the files, the others get empty tensors of that shape and dtype. Before the first tensor is
    read, every file and all shapes have been checked.
    """
    opened: list[TensorReader] = []

    def open_set() -> list[tuple[str, list[int], str]]:
        reader = _open_set(checkpoint, name)
        if check is not None:
            check(reader.shapes, checkpoint.path / name)
        opened.append(reader)
        return [(key, list(like.shape), str(like.dtype)) for key, like in reader.shapes.items()]

    for key, shape, dtype in ranks.on_first(open_set):
        if ranks.first:
            yield key, opened[0].read(key)
        else:
            yield key, torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))


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
    It also removes the score of that checkpoint if it was measured only because the run ended, so the best before it
    stays as well.
    """
    checkpoints = list_checkpoints(folder)
    resumable = [checkpoint for checkpoint in checkpoints if checkpoint.resumable]
    last = resumable[-1].step if resumable else 0
    up_to, before = ([found for found in checkpoints if found.step < end] for end in (last + 1, last))
    best = [best_checkpoint(found) for found in (checkpoints, up_to, before)]
    for checkpoint in checkpoints:
        if checkpoint in resumable[-keep_last:]:
            continue
        if checkpoint.step in snapshots or checkpoint in best:
            with _removing(checkpoint.path):
                for name in (OPTIMIZER, STAGE):
                    _remove_set(checkpoint.path, name)
        else:
            discard(checkpoint.path)


def _remove_set(path: Path, name: str) -> None:
    """Removes the index first: without it, the checkpoint no longer counts as resumable."""
    found = [file.name for file in path.iterdir() if belongs_to(file.name, name)]
    for file in sorted(found, key=lambda file: file != index_name(name)):
        (path / file).unlink()


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
            f"cannot remove old checkpoint files in {path}: {_reason(error)}; fix that, then continue with"
            f" {option(resume=True)}"
        ) from None


def _read_state(path: Path) -> dict[str, Any]:
    file = path / STATE
    try:
        data = read_file(file)
        state = dict(parse_json(data))
        if state["format"] == FORMAT:
            state = parse_json_as(State, data)
            if state["checksums"].get(STATE) != _state_checksum(state) or path.name != _folder_name(state["step"]):
                raise ValueError("its checksum does not match, or it is of another step")
    except (UserError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); remove the folder {path} to continue without it") from None
    if state["format"] != FORMAT:
        raise UserError(f"{file} has format {state['format']}, this version of glassgpt reads format {FORMAT}")
    return state


def files_of(checkpoint: Checkpoint, name: str) -> list[str]:
    """The files of a set of tensors, according to state.json."""
    return [file for file in checkpoint.state["checksums"] if belongs_to(file, name)]


def _open_set(checkpoint: Checkpoint, name: str) -> TensorReader:
    """Raises UserError, with the name of the file, if one is missing, cannot be read or is damaged."""
    files = files_of(checkpoint, name) or [name]
    file = checkpoint.path / name
    try:
        for file in (checkpoint.path / found for found in files):
            if _checksum(file) != checkpoint.state["checksums"].get(file.name):
                raise UserError(
                    f"{file} is damaged: its checksum does not match the one in {STATE}; use another checkpoint, or"
                    f" remove the folder {checkpoint.path} to continue without it"
                )
        file = checkpoint.path / name
        return TensorReader(checkpoint.path / found for found in files if found.endswith(".safetensors"))
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{file} cannot be read: {_reason(error)}") from None


def _checksum(file: Path) -> str:
    check_regular(file)
    value = 0
    with file.open("rb") as stream:
        while piece := stream.read(1 << 22):
            value = zlib.crc32(piece, value)
    return f"crc32:{value:08x}"


def _folder_name(step: int) -> str:
    return f"step-{step:08d}"


def _state_checksum(state: dict[str, Any]) -> str:
    """Checksum of the state's JSON, excluding the checksum itself."""
    files = {name: value for name, value in state["checksums"].items() if name != STATE}
    return f"crc32:{zlib.crc32(json.dumps({**state, 'checksums': files}).encode()):08x}"


def _reason(error: Exception) -> str:
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error):
        return "no space left on the device"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
