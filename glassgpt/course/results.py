"""The figures of a climb: those that `glassgpt ladder` writes, and those of one climb that are part of the package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from glassgpt.config import read_json_as
from glassgpt.course.climb import RESULTS
from glassgpt.errors import UserError
from glassgpt.models.ladder import SECTIONS

SHIPPED = "figures.json"  # in this folder; made by tools/ladder_figures.py


class Row(TypedDict):
    """A section as ladder.json has it: losses in nats per token, None where one was not finite."""

    section: int
    name: str
    n_params: int
    val_loss: float | None
    spread: float | None
    val_losses: list[float | None]
    seconds: float
    sample: str
    steps: list[int]
    losses: list[float | None]
    sizes: NotRequired[dict[str, float]]  # not in the results of older versions


class Shipped(TypedDict):
    """A climb with how it was measured: the command, the machine, the text."""

    command: str
    machine: str
    text: str
    rows: list[Row]


def read_results(folder: Path) -> list[Row]:
    """The rows of the ladder.json in `folder`. Raises UserError if it is damaged or not one of ours."""
    rows: list[Row] = read_json_as(list[Row], folder / RESULTS)
    _check(rows, folder / RESULTS)
    return rows


def shipped_results() -> Shipped:
    """The climb that is part of the package."""
    found: Shipped = json.loads((resources.files("glassgpt.course") / SHIPPED).read_text(encoding="utf-8"))
    return found


def _check(rows: Sequence[Row], path: Path) -> None:
    names = {section.number: section.name for section in SECTIONS}
    seen = set()
    for row in rows:
        number = row["section"]
        if names.get(number) != row["name"] or number in seen:
            raise UserError(f"{path} is damaged: section {number} cannot be '{row['name']}', or stands there twice")
        seen.add(number)
        if len(row["steps"]) != len(row["losses"]) or not row["steps"] or not row["val_losses"]:
            raise UserError(f"{path} is damaged: section {number} needs one loss for each of its steps")
