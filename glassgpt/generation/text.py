"""Generates text from a model, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch

from glassgpt.errors import UserError
from glassgpt.generation.engine import SLOTS, Engine, Request
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.speculative import DraftModel, generate_speculatively
from glassgpt.models import Model
from glassgpt.tokenizers.base import END_OF_TEXT, Tokenizer, begin_with_bos
from glassgpt.tokenizers.stream import StreamDecoder


def start_of_text(tokenizer: Tokenizer) -> list[int]:
    """The ids used for an empty prompt: the tokenizer's `bos_token`, else end-of-text, else a new line, else id 0."""
    if tokenizer.bos_token is not None:
        return begin_with_bos(tokenizer, [])
    if END_OF_TEXT in tokenizer.special_tokens:
        return [tokenizer.special_tokens[END_OF_TEXT]]
    try:
        return tokenizer.encode("\n") or [0]
    except UserError:
        return [0]


def write(
    model: Model,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    config: SamplingConfig,
    max_new_tokens: int,
    generator: torch.Generator,
) -> Iterator[str]:
    """Yields the text that the model generates after the prompt `ids`, piece by piece.

    The model sees the tokenizer's `bos_token`, if it has one, before the prompt.
    """
    for _, piece in write_many(model, tokenizer, [ids], config, max_new_tokens, [generator]):
        if piece is not None:
            yield piece


def write_many(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    max_new_tokens: int,
    generators: Iterable[torch.Generator],
) -> Iterator[tuple[int, str | None]]:
    """As `write`, for many prompts at once: yields which prompt, counted from 0, and the next piece of its text.

    After its last piece comes None.
    """
    engine = Engine(model, tokenizer, slots=min(len(prompts), SLOTS))
    waiting = zip(prompts, generators, strict=True)
    while True:
        for ids, generator in islice(waiting, engine.slots - engine.n_unfinished):
            engine.submit(Request(begin_with_bos(tokenizer, ids), config, max_new_tokens, generator=generator))
        if not engine.busy:
            return
        for piece in engine.step():
            if piece.text:
                yield piece.request, piece.text
            if piece.finish is not None:
                yield piece.request, None


def write_with_drafts(
    model: Model,
    draft: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    max_new_tokens: int,
    generators: Iterable[torch.Generator],
) -> Iterator[tuple[int, str | None]]:
    """As `write_many`, one prompt after another, with the drafts of a smaller model (speculative decoding).

    Raises UserError if the draft model has another vocabulary, or takes no context.
    """
    for number, (ids, generator) in enumerate(zip(prompts, generators, strict=True)):
        decoder, drafter = StreamDecoder(tokenizer), DraftModel(draft, model, vocab_size=tokenizer.vocab_size)
        for id in generate_speculatively(
            model, begin_with_bos(tokenizer, ids), config, drafter,
            max_new_tokens=max_new_tokens, vocab_size=tokenizer.vocab_size, generator=generator,
        ):  # fmt: skip
            if piece := decoder.feed(id):
                yield number, piece
        if rest := decoder.flush():
            yield number, rest
        yield number, None


def text_by_token(tokenizer: Tokenizer, ids: Sequence[int], losses: Sequence[float]) -> list[tuple[str, float]]:
    """The text of the ids in pieces, each with its loss in nats to two decimals, from the `losses` of the ids.

    A character that takes several ids is one piece, with the sum of their losses. The pieces join to what `write`
    yields for the same ids.
    """
    decoder = StreamDecoder(tokenizer)
    pieces: list[tuple[str, float]] = []
    waiting = 0.0  # the loss of ids whose character is not complete
    for id, loss in zip(ids, losses, strict=True):
        waiting += loss
        if piece := decoder.feed(id):
            pieces.append((piece, round(waiting, 2)))
            waiting = 0.0
    if rest := decoder.flush():
        pieces.append((rest, round(waiting, 2)))
    return pieces
