"""glassgpt recipes: the presets that `glassgpt train` knows."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def recipes(as_json: Annotated[bool, typer.Option("--json", help="The whole recipes as JSON.")] = False) -> None:
    """List the recipes."""
    from glassgpt.config import read_toml
    from glassgpt.runs.config import list_recipes

    found = {name: read_toml(path) for name, path in list_recipes().items()}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, recipe in found.items():
        typer.echo(f"{name:<12} {recipe['about']}")
