"""`glassgpt sample`: generates text with a run."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from glassgpt.cli.output import note
from glassgpt.generation import MAX_NEW_TOKENS, TEMPERATURE

if TYPE_CHECKING:
    from glassgpt.runs.run import Run

RUN_HELP = "Run name under runs/, or path."
CHECKPOINT_HELP = "Checkpoint: best, last or a step."
MOST_SAMPLES = 1_000_000
DTYPE_HELP = "Precision: float32, tf32, bfloat16, float16 or auto (bfloat16 where a GPU has it)."


def sample(
    run: Annotated[str, typer.Argument(help=RUN_HELP)],
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    num_samples: Annotated[int, typer.Option(help="Number of texts.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate per text.")] = MAX_NEW_TOKENS,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature: 0 is greedy, 1 is unscaled, above 1 is more random.")
    ] = TEMPERATURE,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k most likely tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Sample from the fewest tokens with at least this total probability.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed: the same seed gives the same text.")] = None,
    checkpoint: Annotated[str, typer.Option(help=CHECKPOINT_HELP)] = "best",
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "float32",
    weights: Annotated[
        str | None, typer.Option(help="Faster weights on a CPU: float32, bfloat16 or int8. Default: as they are.")
    ] = None,
) -> None:
    """Generate text with a run, and print it token by token."""
    from glassgpt.errors import UserError, shown
    from glassgpt.generation.sampling import SamplingConfig

    config = SamplingConfig(temperature, top_k, top_p)
    if not 1 <= num_samples <= MOST_SAMPLES:
        raise UserError(
            f"num-samples {shown(num_samples)} is out of range: it must be at least 1 and at most {MOST_SAMPLES:,}"
        )
    opened = open_run(run, checkpoint, device, dtype)
    n_prompt, block_size = len(opened.tokenizer.encode(prompt)), opened.config.model.block_size
    if n_prompt > block_size:
        note(f"the prompt has {n_prompt:,} tokens, the model sees the last {block_size} of them: a rolling window")
    pieces = opened.stream_many(
        [prompt] * num_samples, config, max_new_tokens=max_new_tokens, seed=seed, weights=weights
    )
    current, ended = 0, set()
    waiting: defaultdict[int, str] = defaultdict(str)  # what has come of later texts
    print_text(prompt)
    for number, piece in pieces:
        if piece is None:
            ended.add(number)
        elif number == current:
            print_text(piece)
        else:
            waiting[number] += piece
        while current in ended:
            print_text("\n")
            current += 1
            if current < num_samples:
                print_text("\n" + "-" * 40 + "\n" + prompt + waiting.pop(current, ""))


def open_run(run: str, checkpoint: str, device: str, dtype: str) -> Run:
    """Opens a run, and prints on stderr what was asked for and this machine lacks."""
    from glassgpt.runs.run import load

    opened = load(run, checkpoint=checkpoint, device=device, dtype=dtype)
    for line in opened.runtime.notes:
        note(line)
    return opened


def print_text(text: str) -> None:
    """Writes text to stdout unchanged, at once. typer.echo would drop escape sequences if stdout is a file."""
    sys.stdout.write(text)
    sys.stdout.flush()
