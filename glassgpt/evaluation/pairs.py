"""How well an encoder-decoder writes held-out targets: the loss, exact targets and the edit distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from glassgpt.data.examples import Examples
from glassgpt.data.pair_loader import PairRows, collate_pairs
from glassgpt.data.pairs import Ends, split_pair
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.translate import GREEDY, write_target
from glassgpt.models import EncoderDecoderModel, evaluating
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.losses import pair_loss

ROWS = 128  # pairs of a pass


@dataclass(frozen=True)
class PairEvaluation:
    """The figures of `pairs` pairs.

    `loss` is in nats per token of a target, given the true ones before it. For the others the model writes the target
    itself, greedily. `exact` is the share of targets without a mistake. `edit_distance` is the number of characters to
    insert, delete or replace (Levenshtein 1966) per character of a true target: 0 is perfect. All three are NaN if the
    weights have diverged.
    """

    loss: float
    exact: float
    edit_distance: float
    pairs: int

    def figures(self) -> dict[str, float]:
        """The figures as metrics.jsonl names them."""
        return {
            "val/loss": self.loss,
            "val/exact": self.exact,
            "val/edit_distance": self.edit_distance,
            "val/pairs": self.pairs,
        }


@torch.no_grad()
def evaluate_pairs(
    model: EncoderDecoderModel,
    examples: Examples,
    tokenizer: Tokenizer,
    runtime: Runtime,
    *,
    max_pairs: int | None = None,
) -> PairEvaluation:
    """The figures of all pairs of a split, or of about `max_pairs` of them, evenly spaced and the same at every call.

    Each of several ranks computes all of it: with sharded weights they must make the same passes. It restores the
    model's mode.
    """
    ends = Ends.of(tokenizer)
    count = len(examples) if max_pairs is None else max(1, min(max_pairs, len(examples)))
    numbers = np.arange(count) * len(examples) // count
    numbers = numbers[np.argsort(examples.lengths[numbers], kind="stable")]  # of similar length: little padding
    nats = n_tokens = 0.0
    exact = edits = characters = 0
    with evaluating(model):
        for start in range(0, count, ROWS):
            chosen = [split_pair(examples, int(number)) for number in numbers[start : start + ROWS]]
            batch = collate_pairs(chosen, ends, model.config.block_size).to(runtime.device)
            with runtime.autocast():
                loss = pair_loss(model, batch)
            nats, n_tokens = nats + float(loss.sum), n_tokens + float(loss.weight)
            if not math.isfinite(nats):  # the weights have diverged, and cannot write
                return PairEvaluation(math.nan, math.nan, math.nan, count)
            written = write_targets(model, batch, ends, tokenizer, runtime)
            for (_, target), text in zip(chosen, written, strict=True):
                true = tokenizer.decode(target[:-1])
                exact += text == true
                edits += edit_distance(text, true)
                characters += len(true)
    return PairEvaluation(nats / n_tokens, exact / count, edits / max(1, characters), count)


def write_targets(
    model: EncoderDecoderModel,
    batch: PairRows,
    ends: Ends,
    tokenizer: Tokenizer,
    runtime: Runtime,
    *,
    max_new_tokens: int | None = None,
    config: SamplingConfig = GREEDY,
    generator: torch.Generator | None = None,
) -> list[str]:
    """What the model writes for the sources of a batch, greedily or as `config` says.

    Each target has at most `max_new_tokens` tokens, and never more than `block_size`.
    """
    block_size = model.config.block_size
    most = block_size if max_new_tokens is None else min(max_new_tokens, block_size)
    with runtime.autocast():
        rows = write_target(
            model, batch.source, ends.start_id, ends.stop_id, most, batch.visible,
            vocab_size=tokenizer.vocab_size, config=config, generator=generator,
        )  # fmt: skip
    return [tokenizer.decode(row) for row in rows]


def edit_distance(one: Sequence[object], other: Sequence[object]) -> int:
    """The fewest insertions, deletions and replacements that make one of the other (Levenshtein 1966).

    Row by row of the table of all prefixes (Wagner & Fischer 1974): time |one| · |other|, memory |other|.
    """
    distances = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        diagonal, distances[0] = distances[0], i
        for j, right in enumerate(other, 1):
            replaced = diagonal + (left != right)
            diagonal = distances[j]
            distances[j] = min(replaced, distances[j] + 1, distances[j - 1] + 1)
    return distances[-1]
