"""Reads a run folder for a report: settings, machine, metrics and samples."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.files import read_json
from glassgpt.training.config_formats import read_config
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

    @property
    def pretrained(self) -> bool:
        """Whether the run's stage is pretraining, the only one before configs named it."""
        return bool(self.config.get("run", {}).get("stage", "pretrain") == "pretrain")

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
        config=read_config(config) if config.exists() else {},
        machine=_read_if_present(folder / "machine.json"),
        data=_read_if_present(folder / "data.json"),
        train=[line for line in lines if "train/loss" in line and not {"skipped", "final"} & line.keys()],
        validations=[line for line in lines if "val/loss" in line and not line.get("final")],
        skipped=[line for line in lines if "skipped" in line],
        final=final_record(lines),
        samples=read_measurements(folder / "samples.jsonl"),
        lines=lines,
    )


def read_measurements(path: Path) -> list[Line]:
    """The lines of a metrics file, empty if there is no file. A null (a figure that was not finite) becomes NaN.

    Raises UserError for a figure that is not a number.
    """
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        for name in FIGURES:
            if name in line and line[name] is None:
                line[name] = math.nan
        for name in ("step", *FIGURES):
            if not _is_number(line.get(name, 0)):
                raise UserError(f'{path}, line {number}: "{name}" is {json.dumps(line[name])}, not a number')
    return lines


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_if_present(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
