"""`glassgpt ladder`: trains the ten sections of the course and compares them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassgpt.cli.output import path_option, print_json, say
from glassgpt.errors import UserError

if TYPE_CHECKING:
    from glassgpt.course.climb import LadderTraining


def ladder(
    data: Annotated[
        str, typer.Option(help="Training text: a name (glassgpt data list), a file, a folder, or -.")
    ] = "auto",
    section: Annotated[int | None, typer.Option(help="Train only this section (1 to 10).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds per section; each is one training.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps per training.")] = None,
    full: Annotated[bool, typer.Option("--full", help="5,000 steps and 3 seeds.")] = False,
    out: Annotated[Path | None, path_option("Folder for the results; by default, runs/ladder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as a JSON list.")] = False,
) -> None:
    """Train the sections of the ladder on the same characters in the same order, and compare them.

    A table on stderr shows the progress. The results folder holds ladder.json, ladder.svg with the curves, and a run
    for each training: glassgpt sample ladder/s04-head. Sections that are trained one by one in the same way make one
    ladder. A section that it has already begins the next one, runs/ladder-2.
    """
    from glassgpt.cli.ladder_table import LadderTable
    from glassgpt.course.climb import climb_ladder, find_sections, run_name
    from glassgpt.course.results import choose_results_folder, save_results
    from glassgpt.data.dataset_cache import DataConfig, build_dataset
    from glassgpt.runtime.device import build_runtime
    from glassgpt.tokenizers import TokenizerConfig

    sections = find_sections(section)
    training = _choose_training(steps, seeds, full)
    dataset = build_dataset(DataConfig(source=data), TokenizerConfig("char"))
    folder, earlier = choose_results_folder(out, sections, training, dataset, overwrite)
    runtime = build_runtime("auto", "float32")
    with LadderTable(sections, training, save=lambda rows: save_results(folder, rows, earlier)) as table:
        table.note(dataset.note)
        rows = climb_ladder(dataset, sections, training, runtime, table, runs=folder, overwrite=overwrite)
    if as_json:
        print_json([row.to_dict() for row in rows])
    else:
        table.print_result()
        say(f"picture  {folder / 'ladder.svg'}")
        say(f"runs     {folder / run_name(sections[-1], 0)}, …: glassgpt runs {folder} lists them all")


def _choose_training(steps: int | None, seeds: int | None, full: bool) -> LadderTraining:
    from glassgpt.course.climb import FULL, LadderTraining

    given = {name: value for name, value in (("steps", steps), ("seeds", seeds)) if value is not None}
    if full and given:
        raise UserError(f"--full sets steps and seeds itself: leave --{next(iter(given))} out, or --full")
    return LadderTraining(**(FULL if full else given))
