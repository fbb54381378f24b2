"""`glassgpt export`: writes a run in the format of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glassgpt.cli.output import path_option, print_json
from glassgpt.cli.sample import CHECKPOINT_HELP, RUN_HELP


def export(
    run: Annotated[str, typer.Argument(help=RUN_HELP)],
    out: Annotated[Path, path_option("Folder to create.")],
    format: Annotated[str, typer.Option(help="Format: hf (a folder for transformers).")] = "hf",
    checkpoint: Annotated[str, typer.Option(help=CHECKPOINT_HELP)] = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Export a run so that other programs load it without GlassGPT."""
    from glassgpt.runs.exporting import find_exporter

    folder = find_exporter(format)(run, out, checkpoint=checkpoint, overwrite=overwrite)
    if as_json:
        print_json({"run": run, "format": format, "out": str(folder)})
    else:
        typer.echo(str(folder))
