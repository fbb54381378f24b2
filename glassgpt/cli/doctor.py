"""`glassgpt doctor`: checks a recipe before training, or a run and its curves."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassgpt.cli.output import AsJson, beside, fold, note, print_json, say, table_width

if TYPE_CHECKING:
    from glassgpt.doctor.finding import Diagnosis, Finding

NAME_WIDTH = 21  # of the longest name of a check
STYLES: dict[str, dict[str, Any]] = {
    "passed": {"fg": "green"},
    "failed": {"fg": "red", "bold": True},
    "skipped": {"fg": "yellow"},
}


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
    explain: Annotated[bool, typer.Option("--explain", help="Say of each check what is expected, and why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a recipe and its text before training, or a run and its curves. Exit code 1 if a check fails.

    A check that failed is explained below its line.
    """
    from glassgpt.doctor.diagnosis import diagnose

    given = {"data.source": data, "machine.device": device, "machine.dtype": dtype}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    live = sys.stdout.isatty() and not as_json

    def show(finding: Finding) -> None:
        if live:
            print_finding(finding, explain=explain)
        else:  # progress: some checks take seconds
            note(f"{finding.status:<8} {finding.name}")

    diagnosis = diagnose(target, overrides=set or [], settings=settings, note=note, on_finding=show)
    if as_json:
        print_json(diagnosis.to_dict())
    else:
        for finding in () if live else diagnosis.findings:
            print_finding(finding, explain=explain)
        print_verdict(diagnosis)
    raise typer.Exit(0 if diagnosis.healthy else 1)


def print_finding(finding: Finding, *, explain: bool = False) -> None:
    """Prints a check and what it found. If it failed, or with `explain`, what is expected and why comes below."""
    width, head = table_width(), f"{finding.status:<8}{finding.name:<{NAME_WIDTH}}  "
    found = f"{finding.figure}: {finding.reason}" if finding.status == "skipped" else finding.figure
    text = "\n".join(beside(head, found, width))
    typer.echo(typer.style(text[:8], **STYLES[finding.status]) + text[8:])
    if explain or finding.status == "failed":
        for line in _details(finding, width):
            typer.echo(line)


def print_verdict(diagnosis: Diagnosis) -> None:
    """Prints the answer to "is this normal?", for a run, and how many checks passed."""
    typer.echo()
    if diagnosis.normal:
        typer.echo(typer.style(fold(diagnosis.normal, table_width()), bold=True))
    parts = ", ".join(f"{diagnosis.count(status)} {status}" for status in ("passed", "failed", "skipped"))
    say(f"{diagnosis.target}: {parts}")


def _details(finding: Finding, width: int | None) -> list[str]:
    """What is expected, why, and what to do."""
    lines: list[str] = []
    for title, text in {"expected": finding.expected, "why": finding.reason, "do": finding.remedy}.items():
        if text:
            lines += beside(f"{'':8}{title:<10}", text, width)
    return lines
