"""glassgpt plan: what a run will take, before it is begun."""

from __future__ import annotations

from typing import Annotated

import typer

from glassgpt.cli.output import AsJson, print_json


def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (glassgpt recipes) or TOML file.")],
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change any field of the recipe.")
    ] = None,
    device: Annotated[str, typer.Option(help="this, cpu, or a GPU's name: h100, a100, 4090, t4, …")] = "this",
    utilisation: Annotated[float, typer.Option(help="The share of the device's peak that the run reaches.")] = 0.4,
    price_per_hour: Annotated[float | None, typer.Option(help="Of the device, in any currency.")] = None,
    measure: Annotated[bool, typer.Option(help="Run steps on this machine's device for about ten seconds.")] = True,
    as_json: AsJson = False,
) -> None:
    """Parameters, arithmetic, memory by micro-batch, time and cost of a recipe."""
    from glassgpt.cli.plan_table import print_plan
    from glassgpt.planning.plan import make_plan

    made = make_plan(
        recipe, set or [], device=device, utilisation=utilisation, price_per_hour=price_per_hour,
        seconds=10.0 if measure else 0.0, note=lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    if as_json:
        print_json(made.to_dict())
    else:
        print_plan(made)
