"""`glassgpt runs` and `glassgpt note`: list runs, and add notes to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassgpt.cli.sample import RUN_HELP

if TYPE_CHECKING:
    from glassgpt.report.daybook import Entry

WIDTH_OF_A_FILE = 200  # columns of the table where stdout is no terminal


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder with the runs.")] = Path("runs"),
    sort: Annotated[str, typer.Option(help="Column to sort by: begun, run, steps, val_loss, seconds, …")] = "begun",
    reverse: Annotated[bool, typer.Option("--reverse", help="Reverse the order.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List all runs with date, data, model, losses, time and notes, newest first."""
    from glassgpt.errors import UserError
    from glassgpt.report.daybook import list_entries

    if not folder.is_dir() and folder != Path("runs"):
        raise UserError(f"there is no folder {folder}: name the one that holds the runs")
    entries = list_entries(folder, sort, reverse=reverse)
    if as_json:
        typer.echo(json.dumps({"runs": [entry.to_dict() for entry in entries]}, ensure_ascii=False))
    elif not entries:
        typer.echo(f"there is no run under {folder}/ yet: glassgpt train makes one")
    else:
        print_table(entries)


def note(
    run: Annotated[str, typer.Argument(help=RUN_HELP)],
    text: Annotated[str, typer.Argument(help="Text of the note: an observation, or what to try next.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Add a note to a run. glassgpt runs and glassgpt report show it."""
    from glassgpt.report.daybook import add_note
    from glassgpt.runs.folder import find_run

    folder = find_run(run)
    added = add_note(folder, text)
    fields = {"run": str(folder), "time": added.time.isoformat(), "text": added.text}
    typer.echo(json.dumps(fields, ensure_ascii=False) if as_json else f"noted at {added.time:%Y-%m-%d %H:%M}: {folder}")


def print_table(entries: list[Entry]) -> None:
    """Prints a row per run. If a run cannot be read, the last column says why."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from glassgpt.report.figures import count, duration

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    table = Table(box=None, pad_edge=False)
    for name in ("begun", "run", "data", "model"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("parameters", "steps", "train", "val", "best", "bits/byte", "time", "val time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last note", overflow="ellipsis", no_wrap=True, ratio=1)
    for entry in entries:
        losses = (entry.train_loss, entry.val_loss, entry.best_val_loss, entry.bits_per_byte)
        steps = "" if entry.steps is None else f"{count(entry.steps)}{'' if entry.finished else ' …'}"
        remark = f"damaged: {entry.problem}" if entry.problem else entry.notes[-1].text if entry.notes else ""
        table.add_row(
            f"{entry.begun:%Y-%m-%d %H:%M}",
            *map(Text, (entry.run, entry.data, entry.model)),
            "" if entry.parameters is None else count(entry.parameters),
            steps,
            *("" if loss is None else f"{loss:.4f}" for loss in losses),
            "" if entry.seconds is None else duration(entry.seconds),
            "" if entry.validation_share is None else f"{entry.validation_share:.0%}",
            Text(remark.splitlines()[0] if remark else ""),
        )
    console.print(table)
