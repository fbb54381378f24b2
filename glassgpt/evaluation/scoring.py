"""Log-likelihoods of continuations given a context, for multiple-choice tests and lm-eval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from glassgpt.errors import UserError
from glassgpt.evaluation.logits import iter_logits, rows_per_pass
from glassgpt.models import Model, ModelConfig, evaluating
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.base import Tokenizer, begin_with_bos

MAX_ROWS = 64  # in a pass

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
    return Pair(begin_with_bos(tokenizer, head), tokenizer.encode(context + continuation)[len(head) :])


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
    rows = [_row(pair, model.config) for pair in pairs]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
    ranks = runtime.ranks
    logprobs, hits = np.zeros(len(rows)), np.zeros(len(rows))
    done = 0
    with evaluating(model):
        for batch in _batches(order, [len(inputs) for inputs, _ in rows], model.config, ranks.world_size):
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


def _row(pair: Pair, config: ModelConfig) -> tuple[list[int], list[int]]:
    if not pair.context or not pair.continuation:
        raise UserError("cannot score a text without a context or without a continuation of at least one token")
    if (largest := max(max(pair.context), max(pair.continuation))) >= config.vocab_size:
        raise UserError(f"cannot score token id {largest}: it is outside the model's vocabulary of {config.vocab_size}")
    return cut_left(pair, config.block_size)


def _batches(order: Sequence[int], lengths: Sequence[int], config: ModelConfig, n_ranks: int) -> list[list[int]]:
    """Splits the rows in `order`, longest first, into batches of at most MAX_ROWS rows on each rank."""
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        size = n_ranks * rows_per_pass(config, lengths[order[start]], MAX_ROWS)
        batches.append(list(order[start : start + size]))
        start += size
    return batches


def _score_rows(
    model: Model, rows: Sequence[tuple[list[int], list[int]]], runtime: Runtime
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood and greedy match of each row. Padding is on the right: earlier positions cannot attend to it.

    Only positions that predict a target go through the head: of a HellaSwag row, a quarter.
    """
    inputs = pad_sequence([torch.tensor(inputs) for inputs, _ in rows], batch_first=True).to(runtime.device)
    ends = [n * inputs.size(1) + len(row_inputs) for n, (row_inputs, _) in enumerate(rows)]  # of each row's own tokens
    places = torch.cat([torch.arange(end - len(row), end) for end, (_, row) in zip(ends, rows, strict=True)])
    targets = torch.tensor([id for _, row in rows for id in row], device=runtime.device)
    logprobs, hits = [], []
    with runtime.autocast():
        features = model.features(inputs).flatten(0, 1)[places.to(runtime.device)]
        for part, logits in iter_logits(model, features):
            logprobs.append(logits.log_softmax(dim=-1).gather(1, targets[part, None])[:, 0])
            hits.append(logits.argmax(dim=-1) == targets[part])
    starts = np.cumsum([0, *(len(row) for _, row in rows)])[:-1]
    # Summed in float64, which an Apple GPU lacks: numpy does it.
    summed = np.add.reduceat(torch.cat(logprobs).cpu().numpy(), starts, dtype=np.float64)
    return summed, np.logical_and.reduceat(torch.cat(hits).cpu().numpy(), starts)
