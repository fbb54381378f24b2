"""glassgpt eval: how well a run predicts a text."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from glassgpt.cli.sample import CHECKPOINT_HELP, RUN_HELP


def evaluate(
    run: Annotated[str, typer.Argument(help=RUN_HELP)],
    data: Annotated[str | None, typer.Option(help="Another text; by default the run's own.")] = None,
    split: Annotated[Literal["train", "val"], typer.Option(help="Which split of the text.")] = "val",
    checkpoint: Annotated[str, typer.Option(help=CHECKPOINT_HELP)] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """The loss on a whole split: nats per token, perplexity and bits per byte."""
    from glassgpt.run import load

    opened = load(run, checkpoint=checkpoint, device=device)
    result = opened.evaluate(data, split=split)
    if as_json:
        figures = {
            "val_loss": result.loss,
            "perplexity": result.perplexity,
            "bits_per_byte": result.bits_per_byte,
            "tokens": result.tokens,
        }
        typer.echo(json.dumps(figures))
    else:
        typer.echo(f"{opened.folder}, step {opened.step}, {result.tokens:,} tokens of the {split} split")
        typer.echo(f"loss           {result.loss:.4f} nats per token")
        typer.echo(f"perplexity     {result.perplexity:.4f}")
        typer.echo(f"bits per byte  {result.bits_per_byte:.4f}")
