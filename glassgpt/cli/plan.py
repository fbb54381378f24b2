"""`glassgpt plan`: estimates memory, time and cost of a run before it starts."""

from __future__ import annotations

from typing import Annotated

import typer

from glassgpt.cli.output import AsJson, note, print_json


def plan(
    recipe: Annotated[str, typer.Argument(help="Recipe name (glassgpt recipes) or TOML file.")],
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a recipe field; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: this, cpu, or a GPU such as h100, a100, 4090, t4.")] = "this",
    devices: Annotated[int, typer.Option(help="Number of such devices, with one rank on each.")] = 1,
    parallel: Annotated[str | None, typer.Option(help="How several devices share the work: ddp or fsdp.")] = None,
    utilisation: Annotated[float, typer.Option(help="Expected fraction of the device's peak FLOP/s.")] = 0.4,
    price_per_hour: Annotated[float | None, typer.Option(help="Price of one device per hour, in any currency.")] = None,
    measure: Annotated[bool, typer.Option(help="Measure steps on this machine for about ten seconds.")] = True,
    as_json: AsJson = False,
) -> None:
    """Estimate parameters, FLOPs, memory by micro-batch, time and cost of a recipe."""
    from glassgpt.cli.plan_table import print_plan
    from glassgpt.planning.plan import make_plan

    made = make_plan(
        recipe, set or [], device=device, devices=devices, parallel=parallel, utilisation=utilisation,
        price_per_hour=price_per_hour, seconds=10.0 if measure else 0.0, note=note,
    )  # fmt: skip
    if as_json:
        print_json(made.to_dict())
    else:
        print_plan(made)
