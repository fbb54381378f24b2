"""glassgpt report: a run, or several on the same axes, as one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from glassgpt.cli.sample import RUN_HELP


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN [RUN ...]", help=RUN_HELP)],
    out: Annotated[Path | None, typer.Option(help="The page of several runs; by default comparison.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write report.html into a run's folder, or one page that compares several runs; prints its path."""
    from glassgpt.errors import UserError
    from glassgpt.inspection.report import write_comparison, write_report
    from glassgpt.run import find_run

    folders = [find_run(run) for run in runs]
    if len(folders) == 1 and out is not None:
        raise UserError("--out is for a comparison: the report of one run stays in its folder")
    page = write_report(folders[0]) if len(folders) == 1 else write_comparison(folders, out or Path("comparison.html"))
    typer.echo(json.dumps({"report": str(page), "runs": [str(folder) for folder in folders]}) if as_json else page)
