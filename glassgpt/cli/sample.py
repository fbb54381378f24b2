"""`glassgpt sample`: generates text with a run, for one prompt or for many."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassgpt.cli.output import note, path_option, print_json
from glassgpt.generation import MAX_NEW_TOKENS, TEMPERATURE

if TYPE_CHECKING:
    from glassgpt.generation.sampling import SamplingConfig
    from glassgpt.runs.run import Run

RUN_HELP = "Run name under runs/, or path."
CHECKPOINT_HELP = "Checkpoint: best, last or a step."
MOST_SAMPLES = 1_000_000
DTYPE_HELP = "Precision: float32, tf32, bfloat16, float16 or auto (bfloat16 where a GPU has it)."


def sample(
    run: Annotated[str, typer.Argument(help=RUN_HELP)],
    prompt: Annotated[str, typer.Option(help="Text to continue; the source, for an encoder-decoder.")] = "",
    prompts: Annotated[
        Path | None,
        path_option('Texts to continue: one a line, or objects with a "prompt" in a .jsonl; - for stdin.'),
    ] = None,
    num_samples: Annotated[int, typer.Option(help="Number of texts for each prompt.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate per text.")] = MAX_NEW_TOKENS,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Sampling temperature: 0 is greedy, 1 is unscaled, above 1 is more random."
            f" [default: {TEMPERATURE}; 0 for an encoder-decoder]"
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k most likely tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Sample from the fewest tokens with at least this total probability.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed: the same seed gives the same text.")] = None,
    checkpoint: Annotated[str, typer.Option(help=CHECKPOINT_HELP)] = "best",
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "float32",
    weights: Annotated[
        str | None,
        typer.Option(help="Faster weights on a CPU: float32, float16, bfloat16 or int8. Default: as they are."),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Run of a smaller model whose drafts save time; same tokenizer."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each text, one a line.")] = False,
) -> None:
    """Generate text with a run, and print it token by token."""
    from glassgpt.data.prompts import read_prompts
    from glassgpt.errors import UserError, shown
    from glassgpt.generation.sampling import SamplingConfig
    from glassgpt.models import find_architecture

    config = SamplingConfig(TEMPERATURE if temperature is None else temperature, top_k, top_p)
    if not 1 <= num_samples <= MOST_SAMPLES:
        raise UserError(
            f"num-samples {shown(num_samples)} is out of range: it must be at least 1 and at most {MOST_SAMPLES:,}"
        )
    if prompts is not None and prompt:
        raise UserError("--prompt and --prompts exclude each other: write the text into the file")
    opened = open_run(run, checkpoint, device, dtype)
    paired = find_architecture(opened.config.architecture).kind == "encoder-decoder"
    asked = [prompt] if prompts is None else read_prompts(prompts, keep_blank=paired)
    if len(asked) * num_samples > MOST_SAMPLES:
        raise UserError(f"{len(asked):,} prompts x {num_samples:,} samples are more than {MOST_SAMPLES:,} texts")
    if paired:
        if weights is not None or draft is not None:
            raise UserError("--weights and --draft are for a decoder: leave them out for an encoder-decoder")
        if asked == [""] and prompts is None:
            raise UserError(f"{opened.folder} holds an encoder-decoder, which needs a source: give it with --prompt")
        greedy = SamplingConfig(0.0, top_k, top_p) if temperature is None else config
        _print_targets(
            opened, [each for each in asked for _ in range(num_samples)], greedy, max_new_tokens, seed, as_json
        )
        return
    drafting = None if draft is None else open_run(draft, "best", device, dtype)
    n_prompt, block_size = max(len(opened.tokenizer.encode(each)) for each in asked), opened.config.model.block_size
    if n_prompt > block_size:
        longest = "the prompt has" if len(asked) == 1 else "the longest prompt has"
        note(f"{longest} {n_prompt:,} tokens, the model sees the last {block_size} of them: a rolling window")
    texts = [each for each in asked for _ in range(num_samples)]
    pieces = opened.stream_many(
        texts, config, max_new_tokens=max_new_tokens, seed=seed, weights=weights, draft=drafting
    )
    if as_json:
        written = ["" for _ in texts]
        for number, piece in in_order(pieces):
            if piece is not None:
                written[number] += piece
            else:
                own_seed = None if seed is None else seed + number
                print_json({"prompt": texts[number], "text": written[number], "seed": own_seed})
                sys.stdout.flush()
        return
    print_text(texts[0])
    for number, piece in in_order(pieces):
        if piece is not None:
            print_text(piece)
        elif number + 1 < len(texts):
            print_text("\n\n" + "-" * 40 + "\n" + texts[number + 1])
        else:
            print_text("\n")


def _print_targets(
    run: Run, sources: list[str], config: SamplingConfig, max_new_tokens: int, seed: int | None, as_json: bool
) -> None:
    """Prints what an encoder-decoder writes for each source, one a line: nothing for a source that is empty."""
    asked = [source for source in sources if source]
    written = iter(run.write_targets(asked, config, max_new_tokens=max_new_tokens, seed=seed))
    for source in sources:
        target = next(written) if source else ""
        if as_json:
            print_json({"prompt": source, "text": target, "seed": seed})
        else:
            print_text(target + "\n")


def in_order(pieces: Iterable[tuple[int, str | None]]) -> Iterator[tuple[int, str | None]]:
    """The pieces of text 0 up to its None, then those of text 1, and so on. Pieces of later texts wait."""
    current, ended = 0, set()
    waiting: defaultdict[int, str] = defaultdict(str)
    for number, piece in pieces:
        if piece is None:
            ended.add(number)
        elif number == current:
            yield number, piece
        else:
            waiting[number] += piece
        while current in ended:
            yield current, None
            current += 1
            if current in waiting:
                yield current, waiting.pop(current)


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
