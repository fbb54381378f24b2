"""Reads a run folder for a report: settings, machine, metrics and samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from glassgpt.config import Count, read_json_as
from glassgpt.errors import UserError
from glassgpt.evaluation.counting import CountingLosses
from glassgpt.report.counting import read_counting
from glassgpt.training.config_formats import NO_STAGE, check_section, read_config
from glassgpt.training.metrics import Line, final_record, read_lines

FIGURES = (
    "train/loss",
    "val/loss",
    "val/bits_per_byte",
    "best/val/loss",
    "best/step",
    "lr",
    "grad_norm",
    "tokens_per_second",
    "tokens_seen",
    "seconds",
)


class Data(TypedDict, total=False):
    """The fields of data.json that are used; the others are only shown."""

    name: str
    tokenizer: dict[str, Any]


class LaterSession(TypedDict):
    """The field of a resumed session that is used."""

    after_step: Count


class Machine(TypedDict, total=False):
    """The fields of machine.json that are used; the others are only shown."""

    parameters: Count
    begun: str
    later: list[LaterSession]


@dataclass(frozen=True)
class RunRecord:
    """The contents of a run folder. Most parts are empty if the run has just started or stopped early."""

    name: str
    config: dict[str, Any]  # config.toml, in today's format
    machine: dict[str, Any]
    data: dict[str, Any]  # the manifest of the training data
    train: list[Line]  # one line per logged step that was applied
    validations: list[Line]  # during training; on a part of the validation split
    skipped: list[Line]  # steps that were not applied, with the reason
    final: Line | None  # last line of a finished run; on the full validation split
    samples: list[Line]
    lines: list[Line] = field(default_factory=list)  # all lines of metrics.jsonl
    counting: CountingLosses | None = None  # what counting alone reaches on its text, where that is known

    @property
    def stage(self) -> str:
        """The run's `run.stage`: pretraining was the only one before configs named it."""
        return str(self.config.get("run", {}).get("stage", "pretrain"))

    @property
    def pretrained(self) -> bool:
        """Whether the run's stage is pretraining."""
        return self.stage == "pretrain"

    @property
    def imported(self) -> bool:
        """Whether the run was imported and not trained here."""
        return bool(self.config.get("run", {}).get("stage") == NO_STAGE)

    @property
    def last_step(self) -> int | None:
        """The last step in any line; None if there are no lines."""
        lines = [*self.train, *self.validations, *self.skipped, *([self.final] if self.final else [])]
        return max((line["step"] for line in lines), default=None)

    @property
    def validated(self) -> list[Line]:
        """The validations in order. The last one of a finished run is the final one, on the whole validation split."""
        if self.final is None:
            return self.validations
        before = [line for line in self.validations if line["step"] < self.final["step"]]
        return [*before, self.final] if "val/loss" in self.final else before

    @property
    def best(self) -> tuple[int, float] | None:
        """The step and validation loss of the best checkpoint; None if there is none yet.

        Of a finished run, it is measured on the whole validation split; before that, it is the best validation so far.
        """
        if self.final is not None and "best/val/loss" in self.final:
            step: int = self.final["best/step"] if "best/step" in self.final else self.final["step"]
            return step, self.final["best/val/loss"]
        measured = [line for line in self.validated if math.isfinite(line["val/loss"])]
        best = min(measured, key=lambda line: line["val/loss"], default=None)
        return (best["step"], best["val/loss"]) if best else None

    def last(self, name: str) -> Any:
        """The newest value of a figure, such as "tokens_seen"; None if no line has it."""
        lines = [*self.train, *([self.final] if self.final else [])]
        return next((line[name] for line in reversed(lines) if name in line), None)


def read_record(folder: Path) -> RunRecord:
    """Reads a run folder, finished or not. Raises UserError if it is not a run folder or contains a damaged file."""
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}")
    if not (folder / "config.toml").exists() and not (folder / "metrics.jsonl").exists():
        raise UserError(f"{folder} is not a run folder: it has neither config.toml nor metrics.jsonl")
    lines = read_measurements(folder / "metrics.jsonl")
    config = folder / "config.toml"
    return RunRecord(
        name=folder.resolve().name,
        config=_read_sections(config) if config.exists() else {},
        machine=read_machine(folder),
        data=read_data(folder),
        train=[line for line in lines if "train/loss" in line and not {"skipped", "final"} & line.keys()],
        validations=[line for line in lines if "val/loss" in line and not line.get("final")],
        skipped=[line for line in lines if "skipped" in line],
        final=final_record(lines),
        samples=read_measurements(folder / "samples.jsonl"),
        lines=lines,
        counting=read_counting(folder),
    )


def read_measurements(path: Path) -> list[Line]:
    """The lines of a metrics file, empty if there is no file. A null (a figure that was not finite) becomes NaN."""
    lines = read_lines(path)
    for line in lines:
        line |= {name: math.nan for name in FIGURES if name in line and line[name] is None}
    return lines


def _read_sections(path: Path) -> dict[str, Any]:
    config = read_config(path)
    for name in config.keys() - {"format", "architecture"}:
        try:
            check_section(name, config[name])
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    return config


def read_data(folder: Path) -> dict[str, Any]:
    """The contents of data.json, empty if there is no file. Raises UserError if it is damaged."""
    path = folder / "data.json"
    return dict(read_json_as(Data, path)) if path.exists() else {}


def read_machine(folder: Path) -> dict[str, Any]:
    """The contents of machine.json, empty if there is no file. Raises UserError if it is damaged."""
    path = folder / "machine.json"
    return dict(read_json_as(Machine, path)) if path.exists() else {}
