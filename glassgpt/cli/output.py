"""Prints results on stdout, as text or as JSON (--json)."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def print_json(value: dict[str, Any]) -> None:
    """Prints one JSON object on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_fields(fields: dict[str, Any], as_json: bool) -> None:
    """Prints fields as JSON or as lines of name and value; a nested field is named like `train.tokens`."""
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        for inner, part in value.items() if isinstance(value, dict) else [("", value)]:
            typer.echo(f"{f'{name}.{inner}'.rstrip('.'):<22} {_format(part)}")


def _format(value: Any) -> str:
    """Formats a value on one line: quotes a text with outer blanks, shortens a long list to its ends."""
    if isinstance(value, list | tuple):
        row = [str(part) for part in value]
        return " ".join(row) if len(row) <= 4 else f"{row[0]} … {row[-1]} ({len(row)})"
    return repr(value) if isinstance(value, str) and value != value.strip() else str(value)
