"""The figures of a climb: those that `glassgpt ladder` writes, and those of one climb that are part of the package."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

from glassgpt.config import read_json_as
from glassgpt.course.climb import LadderTraining, SectionRow, run_name
from glassgpt.data.dataset import Dataset
from glassgpt.data.manifest import load_manifest
from glassgpt.errors import UserError, counted
from glassgpt.files import dump_json, write_text
from glassgpt.models.ladder import SECTIONS, Section
from glassgpt.ownership import check_output, is_run_folder
from glassgpt.report.ladder_picture import LadderCurve, draw_ladder
from glassgpt.runs.config import load_config
from glassgpt.runs.folder import RUNS

RESULTS, PICTURE = "ladder.json", "ladder.svg"  # in the folder of the results, beside the runs
SHIPPED = "figures.json"  # in this folder; made by tools/ladder_figures.py


class Row(TypedDict):
    """A section as ladder.json has it: losses in nats per token, None where one was not finite."""

    section: int
    name: str
    idea: NotRequired[str]  # not in the figures of the package
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


def choose_results_folder(
    out: Path | None, sections: Sequence[Section], training: LadderTraining, dataset: Dataset, overwrite: bool = False
) -> tuple[Path, list[Row]]:
    """The folder for the results of these sections, and the rows of other sections that it has already.

    That is `out`, or else the first of runs/ladder, runs/ladder-2, … that is not there or can be added to: its sections
    are others, trained in the same way on the same text. So sections that are trained one by one make one ladder.
    Raises UserError if `out` is a file or a run, or has results that these can neither be added to nor replace.
    """
    if out is None:
        for folder in itertools.chain([RUNS / "ladder"], (RUNS / f"ladder-{number}" for number in itertools.count(2))):
            rows = _rows_to_add_to(folder, sections, training, dataset)
            if rows or not folder.exists():
                return folder, rows
        raise AssertionError("the numbers have no end")
    if is_run_folder(out):
        raise UserError(f"{out} is a run: choose another --out for the results of the ladder")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder for --out")
    rows = [] if overwrite else _rows_to_add_to(out, sections, training, dataset)
    for name in () if rows else (RESULTS, PICTURE):
        check_output(out / name, overwrite)
    return out, rows


def _rows_to_add_to(folder: Path, sections: Sequence[Section], training: LadderTraining, dataset: Dataset) -> list[Row]:
    """The rows of a ladder that these sections can be added to; none where they cannot."""
    try:
        rows = read_results(folder)
        if any((folder / run_name(section, seed)).exists() for section in sections for seed in range(training.seeds)):
            return []
        for row in rows:
            section = SECTIONS[row["section"] - 1]
            for seed in range(training.seeds):
                run = folder / run_name(section, seed)
                if load_config(run / "config.toml") != training.run_config(section, dataset, seed):
                    return []
                if load_manifest(run / "data.json").key != dataset.manifest.key:
                    return []
            if len(row["val_losses"]) != training.seeds:
                return []
    except UserError:  # not there or damaged, or with runs that are gone: it stays as it is
        return []
    return rows


def save_results(folder: Path, rows: Sequence[SectionRow], earlier: Sequence[Row] = ()) -> None:
    """Writes the rows with their curves as JSON, and the picture. Raises UserError if they cannot be written.

    `earlier` are the rows of other sections that the folder had before.
    """
    new = [row.to_dict() | {"steps": row.climbs[0].steps, "losses": row.losses} for row in rows]
    lines = sorted([*earlier, *new], key=lambda line: line["section"])
    curves = [
        LadderCurve(
            line["section"], line["name"], line["steps"], [_number(loss) for loss in line["losses"]],
            _number(line["val_loss"]),
        )
        for line in lines
    ]  # fmt: skip
    write_text(folder / RESULTS, dump_json(lines, indent=1) + "\n")
    write_text(folder / PICTURE, draw_ladder(curves, f"The ladder: {counted(len(curves), 'section')}"))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


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
