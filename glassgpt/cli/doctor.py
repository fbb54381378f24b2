"""`glassgpt doctor`: checks a recipe before training, or a run and its curves."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassgpt.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from glassgpt.doctor.finding import Diagnosis, Finding

WIDTH_OF_A_FILE = 160  # columns of the table where stdout is no terminal
STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def doctor(
    target: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="Recipe name or TOML file, or run name or folder.")
    ],
    data: Annotated[str | None, typer.Option(help="Training text of a recipe, as for train.")] = None,
    device: Annotated[str | None, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Precision: auto, float32, tf32, bfloat16 or float16.")] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a recipe field; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a recipe and its text before training, or a run and its curves. Exit code 1 if a check fails."""
    from glassgpt.doctor.diagnosis import diagnose

    given = {"data.source": data, "machine.device": device, "machine.dtype": dtype}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    diagnosis = diagnose(target, overrides=set or [], settings=settings, note=_say, on_finding=_announce)
    if as_json:
        print_json(diagnosis.to_dict())
    else:
        print_diagnosis(diagnosis)
    raise typer.Exit(0 if diagnosis.healthy else 1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _announce(finding: Finding) -> None:
    """One line of progress: some checks take seconds."""
    _say(f"{finding.status:<8} {finding.name}")


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Prints a row per check with the reason and, for a failed one, what to do."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("found", ratio=3)
    table.add_column("expected", ratio=2)
    table.add_column("why, and what to do", ratio=4)
    for finding in diagnosis.findings:
        advice = Text(finding.reason, style="dim")
        if finding.remedy:
            advice = Text.assemble((finding.reason, "dim"), "\n→ ", finding.remedy)
        status = Text(finding.status, style=STYLES[finding.status])
        table.add_row(status, finding.name, Text(finding.figure), Text(finding.expected), advice)
    console.print(table)
    console.print()
    if diagnosis.normal:
        console.print(Text(diagnosis.normal, style="bold"))
    parts = ", ".join(f"{diagnosis.count(status)} {status}" for status in ("passed", "failed", "skipped"))
    console.print(Text(f"{diagnosis.target}: {parts}"))
