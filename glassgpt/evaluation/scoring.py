"""Log-likelihoods of continuations given a context, for multiple-choice tests and lm-eval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glassgpt.errors import UserError
from glassgpt.models import Model, evaluating
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.base import Tokenizer

MAX_ROWS = 64
MAX_LOGITS = 1 << 25  # in memory at a time: 128 MiB in float32

ScoringProgress = Callable[[int, int], None]  # rows done, rows in all


class Pair(NamedTuple):
    """A text as ids in two parts: the given context and the scored continuation, each with at least one id."""

    context: Sequence[int]
    continuation: Sequence[int]


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> Pair:
    """Encodes both texts together, then splits at the length of the context encoded alone, as lm-eval does.

    Spaces at the end of the context move to the continuation, because tokenizers put a space before a word.
    """
    stripped = context.rstrip()
    head = tokenizer.encode(stripped)
    return Pair(head, tokenizer.encode(context + continuation)[len(head) :])


class Scores(NamedTuple):
    """One entry per pair, n pairs."""

    logprobs: np.ndarray  # (n,) float64, nats: the sum over the continuation
    greedy: np.ndarray  # (n,) bool: every token of the continuation is the most likely one


def cut_left(pair: Pair, block_size: int) -> tuple[list[int], list[int]]:
    """The inputs and targets of a pair, truncated on the left to `block_size` inputs, as in lm-eval.

    A continuation longer than `block_size` loses its own start too; lm-eval refuses this.
    """
    ids = [*pair.context, *pair.continuation][-(block_size + 1) :]
    return ids[:-1], ids[1:][-len(pair.continuation) :]


@torch.no_grad()
def score(
    model: Model,
    pairs: Sequence[Pair],
    runtime: Runtime,
    *,
    progress: ScoringProgress | None = None,
) -> Scores:
    """The log-likelihood of each continuation given its context.

    Pairs of similar length form a batch. The longest come first, so that a lack of memory shows at once. Several ranks
    split the pairs; every rank must call this function and gets the full result. It draws no random numbers and
    restores the model's mode. Raises UserError for a pair with an empty part, and for an id outside the vocabulary.
    """
    vocab_size = model.config.vocab_size
    rows = [_row(pair, model.config.block_size, vocab_size) for pair in pairs]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
    ranks = runtime.ranks
    logprobs, hits = np.zeros(len(rows)), np.zeros(len(rows))
    done = 0
    with evaluating(model):
        for batch in _batches(order, [len(inputs) for inputs, _ in rows], vocab_size, ranks.world_size):
            # Every rank must make the same number of passes, as in validation. A rank without rows repeats another's.
            mine = batch[slice(*ranks.rank_slice(len(batch)))]
            scored = _score_rows(model, [rows[i] for i in mine or batch[:1]], runtime)
            if mine:
                logprobs[mine], hits[mine] = scored
            done += len(batch)
            if progress is not None:
                progress(done, len(rows))
    summed = np.array(ranks.sum([*logprobs.tolist(), *hits.tolist()])).reshape(2, -1)
    return Scores(summed[0], summed[1] > 0)


def _row(pair: Pair, block_size: int, vocab_size: int) -> tuple[list[int], list[int]]:
    if not pair.context or not pair.continuation:
        raise UserError("cannot score a text without a context or without a continuation of at least one token")
    if (largest := max(max(pair.context), max(pair.continuation))) >= vocab_size:
        raise UserError(f"cannot score token id {largest}: it is outside the model's vocabulary of {vocab_size}")
    return cut_left(pair, block_size)


def _batches(order: Sequence[int], lengths: Sequence[int], vocab_size: int, n_ranks: int) -> list[list[int]]:
    """Splits the rows in `order`, longest first, into batches of at most MAX_LOGITS logits on each rank."""
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        size = n_ranks * max(1, min(MAX_ROWS, MAX_LOGITS // (lengths[order[start]] * vocab_size)))
        batches.append(list(order[start : start + size]))
        start += size
    return batches


def _score_rows(
    model: Model, rows: Sequence[tuple[list[int], list[int]]], runtime: Runtime
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood and greedy match of each row. Padding is on the right: earlier positions cannot attend to it."""
    inputs = pad_sequence([torch.tensor(inputs) for inputs, _ in rows], batch_first=True).to(runtime.device)
    with runtime.autocast():
        logits = model(inputs)  # (B, T, V)
    scored = torch.cat([_last(part, row) for part, row in zip(logits, rows, strict=True)]).float()
    targets = torch.tensor([id for _, row in rows for id in row], device=runtime.device)
    logprobs = scored.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0].double().cpu().numpy()
    hits = (scored.argmax(dim=-1) == targets).cpu().numpy()
    starts = np.cumsum([0, *(len(row) for _, row in rows)])[:-1]
    return np.add.reduceat(logprobs, starts), np.logical_and.reduceat(hits, starts)


def _last(logits: Tensor, row: tuple[list[int], list[int]]) -> Tensor:
    """Selects the logits that predict the targets from the logits (T, V) of a padded row."""
    inputs, targets = row
    return logits[len(inputs) - len(targets) : len(inputs)]
