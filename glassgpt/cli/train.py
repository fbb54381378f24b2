"""`glassgpt train`: trains a recipe on a text."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from glassgpt.cli.output import STARTED, print_json


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe (glassgpt recipes) or TOML file; modern-tiny by default.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Training text: a name (glassgpt data list), a file, a folder, or - for stdin."),
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(metavar="RUN", help="Start from the weights and tokenizer of this run.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Run name under runs/, or path.")] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Stop after this many steps; the schedule does not change.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Take so many minutes: chooses the steps and, without a recipe, the size."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    seed: Annotated[int | None, typer.Option(help="Random seed (initialisation, data order, dropout).")] = None,
    device: Annotated[str | None, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Precision: auto, float32, tf32, bfloat16 or float16.")] = None,
    compile: Annotated[bool | None, typer.Option("--compile/--no-compile", help="Use torch.compile.")] = None,
    devices: Annotated[
        int | None, typer.Option(help="Train on N GPUs of this machine, or in N processes on its CPU.")
    ] = None,
    parallel: Annotated[
        str | None, typer.Option(help="Parallelism for several devices: ddp (default) or fsdp.")
    ] = None,
    overfit_batch: Annotated[
        bool, typer.Option("--overfit-batch", help="Overfit one batch: the first check of any change.")
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Also send figures to this tracker: swanlab, trackio, wandb or tensorboard; repeatable."),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a recipe field; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train a recipe on a text. Progress goes to stderr; everything is saved in the run folder."""
    from glassgpt.runtime.launch import check_devices, is_launched, run_ranks

    if devices is not None and not is_launched():
        check_devices(devices)
        raise typer.Exit(run_ranks(this_command(), devices))

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
            recipe, data=data, init_from=init_from, run=run, max_steps=max_steps, minutes=minutes, resume=resume,
            overwrite=overwrite, overfit_batch=overfit_batch, track=track or (), overrides=set or [],
            settings=settings, listener=build_listener(), began=STARTED,
        )  # fmt: skip
    except Interrupted as interrupted:
        raise typer.Exit(128 + interrupted.signal) from None
    if finished is None:  # not the first rank
        return
    if as_json:
        print_json(finished.summary or {})
    else:
        print_result(finished)


def this_command() -> list[str]:
    """The command line that runs this program again: the same package, whatever files the current folder has."""
    again = f"import sys; sys.path[:] = {sys.path!r}; from glassgpt.cli.main import main; main()"
    return [sys.executable, "-P", "-c", again, *sys.argv[1:]]
