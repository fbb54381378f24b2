"""glassgpt sample: a run writes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

RUN_HELP = "A run's name under runs/, or its path."
CHECKPOINT_HELP = "best, last or a step."


def sample(
    run: Annotated[str, typer.Argument(help=RUN_HELP)],
    prompt: Annotated[str, typer.Option(help="The text to go on from.")] = "",
    num_samples: Annotated[int, typer.Option(help="How many texts.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="The length of each.")] = 500,
    temperature: Annotated[float, typer.Option(help="0 is greedy, 1 as learned, above 1 wilder.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k most likely tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the fewest tokens that hold this mass.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed writes the same text.")] = None,
    checkpoint: Annotated[str, typer.Option(help=CHECKPOINT_HELP)] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Write text from a run's weights, as it is chosen."""
    from glassgpt.errors import UserError
    from glassgpt.generation.sampling import SamplingConfig
    from glassgpt.runs.run import load

    config = SamplingConfig(temperature, top_k, top_p)
    if num_samples < 1:
        raise UserError(f"num-samples {num_samples} is out of range: it must be at least 1")
    opened = load(run, checkpoint=checkpoint, device=device)
    n_prompt, block_size = len(opened.tokenizer.encode(prompt)), opened.config.model.block_size
    if n_prompt > block_size:
        typer.echo(
            f"the prompt has {n_prompt} tokens, the model sees the last {block_size} of them: a rolling window",
            err=True,
        )
    for number in range(num_samples):
        if number:
            print_text("\n" + "-" * 40 + "\n")
        print_text(prompt)
        pieces = opened.stream(
            prompt, config, max_new_tokens=max_new_tokens, seed=None if seed is None else seed + number
        )
        for piece in pieces:
            print_text(piece)
        print_text("\n")


def print_text(text: str) -> None:
    """Text on stdout exactly as it is, at once; typer.echo would drop escape sequences where stdout is a file."""
    sys.stdout.write(text)
    sys.stdout.flush()
