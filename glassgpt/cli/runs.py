"""`glassgpt runs` and `glassgpt note`: list runs, and add notes to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassgpt.cli.output import Column, format_table, print_json, say, table_width
from glassgpt.cli.sample import RUN_HELP
from glassgpt.errors import printable

if TYPE_CHECKING:
    from glassgpt.report.daybook import Entry


PARTIAL = "~"  # before a validation loss that was measured on a part of the split


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder with the runs.")] = Path("runs"),
    sort: Annotated[str, typer.Option(help="Column to sort by: begun, run, steps, val_loss, seconds, …")] = "begun",
    reverse: Annotated[bool, typer.Option("--reverse", help="Reverse the order.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List all runs, newest first: name, steps and losses, then date, time, data, model and notes as they fit."""
    from glassgpt.errors import UserError
    from glassgpt.report.daybook import list_entries, list_foreign

    if not folder.is_dir() and folder != Path("runs"):
        raise UserError(f"there is no folder {folder}: name the one that holds the runs")
    entries = list_entries(folder, sort, reverse=reverse)
    tell_foreign(list_foreign(folder))
    if as_json:
        print_json({"runs": [entry.to_dict() for entry in entries]})
    elif not entries:
        say(f"there is no run under {folder}/ yet: glassgpt train makes one")
    else:
        print_table(entries)


def tell_foreign(folders: Iterable[Path]) -> None:
    """Says on stderr which folders among the runs were left out."""
    for folder in folders:
        say(f"{printable(str(folder))} has a config.toml and is not a run: skipped", err=True)


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
    if as_json:
        print_json({"run": str(folder), "time": added.time.isoformat(), "text": added.text})
    else:
        say(f"noted at {added.time:%Y-%m-%d %H:%M}: {folder}")


def print_table(entries: Sequence[Entry]) -> None:
    """Prints a row per run, then why a run cannot be read. The first columns are the ones that fit everywhere."""
    from glassgpt.report.figures import count, duration

    def column(title: str, cell: Callable[[Entry], str | None], *, right: bool = True, shrinks: bool = False) -> Column:
        return Column(title, [cell(entry) or "" for entry in entries], right, shrinks)

    def loss(title: str, field: str, *, validation: bool = True) -> Column:
        def cell(entry: Entry) -> str | None:
            value = getattr(entry, field)
            return None if value is None else f"{PARTIAL if validation and not entry.finished else ''}{value:.4f}"

        return column(title, cell)

    columns = [
        column("run", lambda entry: entry.run, right=False),
        column("steps", lambda e: None if e.steps is None else f"{count(e.steps)}{'' if e.finished else ' …'}"),
        loss("val", "val_loss"),
        loss("best", "best_val_loss"),
        column("begun", lambda entry: f"{entry.begun:%Y-%m-%d %H:%M}", right=False),
        column("time", lambda entry: None if entry.seconds is None else duration(entry.seconds)),
        column("last note", lambda e: e.notes[-1].text.splitlines()[0] if e.notes else None, right=False, shrinks=True),
        loss("train", "train_loss", validation=False),
        column("data", lambda entry: entry.data, right=False),
        column("model", lambda entry: entry.model, right=False),
        column("parameters", lambda entry: None if entry.parameters is None else count(entry.parameters)),
        loss("bits/byte", "bits_per_byte"),
        column("val time", lambda e: None if e.validation_share is None else f"{e.validation_share:.0%}"),
    ]
    for line in format_table(columns, table_width(), needed=3):
        typer.echo(line)
    if any(entry.val_loss is not None and not entry.finished for entry in entries):
        say(f"{PARTIAL} the run is not finished (…): measured on a part of the validation split")
    for entry in entries:
        if entry.problem:
            say(f"{printable(entry.run)} is damaged: {printable(entry.problem)}")
