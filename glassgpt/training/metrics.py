"""The metrics of a run: JSON lines that can be truncated to the step from which training resumes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Required

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from glassgpt.config import Count, Figure, Text, parse_json_as
from glassgpt.errors import UserError, option, shown
from glassgpt.files import dump_json, read_file, write_text

if TYPE_CHECKING:  # a report reads metrics without torch
    from glassgpt.training.fit import StepResult, TrainState

TRAIN_LOSS_PART = 0.02  # a run's final training loss is the mean over this last part of its steps, as in its curve,
TRAIN_LOSS_STEPS = 50  # and at most over this many steps

Line = dict[str, Any]


class Piece(TypedDict):
    """A token of a sample, or several that are one character, and its loss in nats."""

    text: Text
    loss: Figure


Record = TypedDict(
    "Record",
    {
        "step": Required[Count],
        "final": bool,
        "at_end": bool,
        "skipped": str,
        "tokens_seen": Count,
        "train/loss": Figure,
        "val/loss": Figure,
        "val/bits_per_byte": Figure,
        "val/tokens": Count,
        "val/hidden": Count,
        "val/pairs": Count,
        "val/seconds": Figure,
        "best/step": Count,
        "best/val/loss": Figure,
        "lr": Figure,
        "grad_norm": Figure,
        "tokens_per_second": Figure,
        "seconds": Figure,
        "validation_seconds": Figure,
        "prompt": Text,
        "text": Text,
        "pieces": list[Piece],
    },
    total=False,
)
# How much a validation was on: a number of what, in the singular. Its other figures were measured on it.
VALIDATED_ON = {"val/tokens": "token", "val/hidden": "hidden token", "val/pairs": "pair"}

Record.__doc__ = "The fields that a line of metrics.jsonl or samples.jsonl may have. A stage adds figures of its own."


def step_line(state: TrainState, result: StepResult, seconds: float, mfu: float | None = None) -> Line:
    """The record of a step. `seconds` is the time of training so far; `mfu` is None if the device's peak is unknown."""
    return {
        "step": state.step,
        "tokens_seen": state.tokens_seen,
        "train/loss": result.loss,
        **{f"train/{name}": value for name, value in result.figures.items()},
        "lr": result.lr,
        "grad_norm": result.grad_norm,
        "tokens_per_second": result.tokens / result.seconds,
        **({} if mfu is None else {"mfu": mfu}),
        **({} if result.skipped is None else {"skipped": result.skipped}),
        "seconds": seconds,
    }


def final_line(
    state: TrainState, losses: Sequence[float], figures: Mapping[str, float], best: Mapping[str, float], seconds: float
) -> Line:
    """The last record: the mean of the training `losses`, the figures of the last weights, and those of the best."""
    return {
        "step": state.step,
        "final": True,
        "tokens_seen": state.tokens_seen,
        "train/loss": sum(losses) / len(losses) if losses else None,
        **figures,
        **{f"best/{name}": value for name, value in best.items()},
        "seconds": seconds,
    }


def train_losses(lines: Sequence[Line], count: int | None = None) -> list[float]:
    """Training losses of the last `count` applied steps, or of all if there are fewer.

    None: of as many as count for a run's final training loss. A short run takes only its last steps, because the loss
    falls fast there.
    """
    steps = [line for line in lines if "train/loss" in line and "skipped" not in line and not line.get("final")]
    if count is None:
        count = max(1, min(TRAIN_LOSS_STEPS, round(TRAIN_LOSS_PART * len(steps))))
    return [line["train/loss"] for line in steps[-count:]]


class JsonLines:
    """A file with one JSON object per line, each with a `step`. Appended lines reach the file at once.

    JSON has no NaN or infinity; they are written as null.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._write_errors():
            self._file = path.open("a", encoding="utf-8")

    def append(self, record: Line) -> None:
        """Appends a record. Raises UserError if it cannot be written."""
        with self._write_errors():
            self._file.write(_dump(record))
            self._file.flush()

    def sync(self) -> None:
        """Forces the lines to disk (fsync)."""
        with self._write_errors():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Never fails: `append` already reported write errors."""
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; fix that, then continue with {option(resume=True)}"
            ) from None


def read_lines(path: Path) -> list[Line]:
    """The records of a file; [] if the file does not exist. A last line cut short by a kill is ignored.

    Raises UserError, with the line number, for any other line that is not a JSON object.
    """
    if not path.exists():
        return []
    lines, records = read_file(path).split(b"\n"), []
    if len(lines) == 1 and lines[0] and not lines[0].startswith(b"{"):  # not even the start of a record
        raise UserError(f"{path}, line 1 is not a record with a step: the file is damaged")
    for number, line in enumerate(lines[:-1], start=1):  # after the last newline: nothing, or a line cut short
        try:
            records.append(_parse(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not a record with a step: {error}") from None
    return records


def _parse(line: bytes) -> Line:
    """A record. Raises ValueError for anything else, and for a figure of a stage or a test suite that is no number."""
    record: Line = parse_json_as(Record, line)
    for name, value in record.items():
        if "/" in name and name not in Record.__annotations__ and type(value) not in (int, float, NoneType):
            raise ValueError(f"{name} = {shown(value)} is not a number")
    return record


def final_record(lines: Sequence[Line]) -> Line | None:
    """The final metrics of a run, over the full validation split; None if it has not finished."""
    return next((line for line in reversed(lines) if line.get("final")), None)


def cut_back(path: Path, keep: Callable[[Line], bool]) -> None:
    """Rewrites the file atomically with only the records for which `keep` is true."""
    write_text(path, "".join(_dump(record) for record in read_lines(path) if keep(record)))


def _dump(record: Line) -> str:
    return dump_json(record) + "\n"


class RunLog:
    """metrics.jsonl and samples.jsonl of a run in training; without `writes` (other ranks), lines are dropped."""

    def __init__(self, folder: Path, *, writes: bool) -> None:
        names = ("metrics.jsonl", "samples.jsonl") if writes else ()
        self._files = {name: JsonLines(folder / name) for name in names}

    def add(self, record: Line, file: str = "metrics.jsonl") -> None:
        """Appends a record to metrics.jsonl, or to another of the files."""
        if file in self._files:
            self._files[file].append(record)

    def train_losses(self, count: int | None = None) -> list[float]:
        """See `train_losses`."""
        return train_losses(read_lines(self._files["metrics.jsonl"].path), count) if self._files else []

    def sync(self) -> None:
        """Forces all lines to disk (fsync), so that a checkpoint saved afterwards is never ahead of the metrics."""
        for file in self._files.values():
            file.sync()

    def close(self) -> None:
        """Never fails: `add` already reported write errors."""
        for file in self._files.values():
            file.close()
