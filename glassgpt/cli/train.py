"""glassgpt train: a text to a run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def train(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name (glassgpt recipes) or TOML file.")] = None,
    data: Annotated[
        str | None, typer.Option(help="auto, shakespeare, python-manual, a file, a folder, or - for stdin.")
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(metavar="RUN", help="Begin with the weights and the tokenizer of that run.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="The run's name under runs/, or its path.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after this many steps; the schedule stays.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the first weights, the data order and dropout.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, tf32, bfloat16, float16.")] = None,
    compile: Annotated[bool | None, typer.Option("--compile/--no-compile", help="Use torch.compile.")] = None,
    parallel: Annotated[str | None, typer.Option(help="How torchrun's ranks share the work: ddp, fsdp.")] = None,
    overfit_batch: Annotated[
        bool, typer.Option("--overfit-batch", help="Learn one batch by heart: the first check of any change.")
    ] = False,
    track: Annotated[
        list[str] | None, typer.Option(help="Also send figures to swanlab, trackio, wandb or tensorboard; repeatable.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change any field of the recipe.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")] = False,
) -> None:
    """Train a recipe on a text. Progress goes to stderr; everything is kept in the run's folder."""
    from glassgpt.cli.progress import build_listener, print_result
    from glassgpt.runs.session import Interrupted
    from glassgpt.runs.train import train as train_run

    given = {
        "training.seed": seed, "machine.device": device, "machine.dtype": dtype, "machine.compile": compile,
        "machine.parallel": parallel,
    }  # fmt: skip
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        finished = train_run(
            recipe, data=data, init_from=init_from, run=run, max_steps=max_steps, resume=resume, overwrite=overwrite,
            overfit_batch=overfit_batch, track=track or (), overrides=set or [], settings=settings,
            listener=build_listener(),
        )  # fmt: skip
    except Interrupted as interrupted:
        raise typer.Exit(128 + interrupted.signal) from None
    if finished is None:  # not the first rank
        return
    if as_json:
        typer.echo(json.dumps(finished.summary))
    else:
        print_result(finished)
