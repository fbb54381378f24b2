"""`glassgpt report`: writes a page on a run, on several runs, or on the runs of some days."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glassgpt.cli.output import path_option, print_json
from glassgpt.cli.runs import tell_foreign
from glassgpt.cli.sample import RUN_HELP


def report(
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help=RUN_HELP)] = None,
    out: Annotated[
        Path | None, path_option("File for a comparison or log; by default, comparison.html or log.html.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="Log of all runs and notes, from this day on.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Last day of the log.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that glassgpt did not write.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write report.html into a run's folder, or a page on several runs or on a period. Prints its path."""
    from glassgpt.errors import UserError
    from glassgpt.ownership import check_output
    from glassgpt.runs.folder import check_trained, find_run

    if since is not None or until is not None:
        if runs:
            raise UserError("--since and --until are for the log of all runs: name runs or days, not both")
        out = out or Path("log.html")
        check_output(out, overwrite)
        print_page(*write_log(since, until, out), as_json)
        return
    if not runs:
        raise UserError("name a run, several to compare them, or days with --since 2026-11-21")
    folders = [find_run(run) for run in runs]
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise UserError(f"{twice} is named twice: name each run once")
    for folder in folders:
        check_trained(folder)
    if len(folders) == 1 and out is not None:
        raise UserError("--out is for a comparison: the report of one run stays in its folder")
    if len(folders) == 1:
        from glassgpt.runs.reporting import report_run

        page = report_run(folders[0])
    else:
        from glassgpt.report.run_page import write_comparison

        out = out or Path("comparison.html")
        check_output(out, overwrite)
        page = write_comparison(folders, out)
    print_page(page, folders, as_json)


def write_log(since: str | None, until: str | None, out: Path) -> tuple[Path, list[Path]]:
    """Writes a page on the runs and notes of a period. Returns its path and the folders of these runs."""
    from glassgpt.errors import UserError
    from glassgpt.report.daybook import list_entries, list_foreign, parse_day, within
    from glassgpt.report.daybook_page import write_daybook
    from glassgpt.runs.folder import RUNS

    first = None if since is None else parse_day(since, "--since")
    last = None if until is None else parse_day(until, "--until")
    entries = within(list_entries(RUNS), first, last)
    tell_foreign(list_foreign(RUNS))
    if not entries:
        raise UserError(f"no run under {RUNS}/ was started or has a note in this period: glassgpt runs lists all runs")
    return write_daybook(entries, first, last, out), [Path(entry.folder) for entry in entries]


def print_page(page: Path, folders: list[Path], as_json: bool) -> None:
    """Prints the path of the page; as JSON, also the runs on it."""
    if as_json:
        print_json({"report": str(page), "runs": [str(folder) for folder in folders]})
    else:
        typer.echo(page)
