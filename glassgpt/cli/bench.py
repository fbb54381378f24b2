"""`glassgpt bench`: measures training tricks on this device."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from glassgpt.tricks import Results

app = typer.Typer(no_args_is_help=True, help="Benchmark training tricks on this device.")
WIDTH_OF_A_FILE = 150  # columns of the table where stdout is no terminal


@app.command()
def tricks(
    recipe: Annotated[str, typer.Argument(help="Recipe name (glassgpt recipes) or TOML file.")] = "gpt2-mini",
    data: Annotated[str | None, typer.Option(help="Training text; by default, the recipe's.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows per batch; by default, the recipe's, at most 16.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps per measurement.")] = 20,
    rounds: Annotated[int, typer.Option(help="Measurements per trick, interleaved.")] = 3,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[Path, typer.Option(help="File for the picture (SVG).")] = Path("tricks.svg"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that glassgpt did not write.")] = False,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a recipe field; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure each trick on and off: tokens per second, peak memory, loss, and why it helped or did not."""
    from glassgpt.files import write_text
    from glassgpt.ownership import check_output
    from glassgpt.report.bars_picture import Bar, draw_bars
    from glassgpt.tricks import explanation, measure_tricks
    from glassgpt.tricks.recipe import plain_setup

    check_output(out, overwrite)  # before minutes of measuring
    setup, dataset = plain_setup(recipe, data, set or [], rows, device, note=lambda line: typer.echo(line, err=True))
    typer.echo(dataset.note, err=True)
    results = measure_tricks(
        setup, dataset, steps=steps, rounds=rounds, progress=lambda line: print(line, file=sys.stderr, flush=True)
    )
    bars = [Bar(row.trick.name, row.speed, row.memory, row.missing) for row in results.rows]
    write_text(out, draw_bars(bars, f"{Path(recipe).stem}: what each trick gives on {results.device}", results.noise))
    if as_json:
        rows_json = [{**row.to_dict(), "explanation": explanation(row, results)} for row in results.rows]
        fields = {"recipe": recipe, "device": results.device, "parameters": results.n_params, "noise": results.noise}
        typer.echo(json.dumps({**fields, "picture": str(out), "tricks": rows_json}))
    else:
        print_table(results)
        typer.echo(f"noise    {results.noise:.1%}: two measurements of the same step differ by so much")
        typer.echo(f"picture  {out}")


def print_table(results: Results) -> None:
    """Prints a row per trick with both measurements and their ratio, then the explanations."""
    from rich.console import Console
    from rich.table import Table

    from glassgpt.tricks import explanation

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    tokens = f"{results.setup.rows} x {results.setup.model.block_size} tokens a step"
    console.print(f"{results.n_params:,} parameters, {tokens}; {results.device}", markup=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("trick", no_wrap=True)
    for name in ("tokens/s without", "with", "speed", "MiB without", "with", "loss without", "with", "first step"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in results.rows:
        if row.without is None or row.with_it is None:
            table.add_row(row.trick.name, *[""] * 8)
        else:
            table.add_row(
                row.trick.name,
                f"{row.without.tokens_per_second:,.0f}", f"{row.with_it.tokens_per_second:,.0f}", f"{row.speed:.2f} x",
                f"{row.without.peak_memory / 2**20:,.0f}", f"{row.with_it.peak_memory / 2**20:,.0f}",
                f"{row.without.loss:.4f}", f"{row.with_it.loss:.4f}", f"{row.with_it.first_step:.1f} s",
            )  # fmt: skip
    console.print(table)
    for row in results.rows:
        console.print(f"\n{row.trick.name} ({row.trick.idea}). {explanation(row, results)}", markup=False)
