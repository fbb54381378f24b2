"""`glassgpt recipes`: lists the presets of `glassgpt train`."""

from __future__ import annotations

import typer

from glassgpt.cli.output import AsJson, print_json

NEEDS = {
    "laptop": "For a laptop, in minutes:",
    "GPU": "For one GPU, in minutes:",
    "GPUs": "For many GPUs, or to plan with (glassgpt plan RECIPE):",
}


def recipes(as_json: AsJson = False) -> None:
    """List the recipes, smallest hardware first."""
    from glassgpt.runs.config import list_recipes

    found = list_recipes()
    if as_json:
        print_json(found)
        return
    width = max(map(len, found))
    for needs, heading in NEEDS.items():
        typer.echo(heading)
        for name, recipe in found.items():
            if recipe["needs"] == needs:
                typer.echo(f"  {name:<{width}}  {recipe['about']}")
