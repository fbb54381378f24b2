"""Computes the logits of many positions with bounded memory.

Shapes: N positions, C = n_embd, T positions of a row, V = vocab_size.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from glassgpt.models import Model, ModelConfig

# Numbers in memory at a time. A pass holds about ten tensors of the size of the features, in float32 1.3 GB in all: as
# much as the logits and their log-probabilities. That is 42 rows of GPT-2 124M; a GPU is busy with far fewer.
MAX_FEATURES = 1 << 25
MAX_LOGITS = 1 << 27


def rows_per_pass(config: ModelConfig, length: int, most: int) -> int:
    """How many rows of `length` tokens go through the blocks at a time: at most `most`, at least one."""
    return max(1, min(most, MAX_FEATURES // (length * config.n_embd)))


def iter_logits(model: Model, features: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields the logits (n, V) in float32 of consecutive parts of `features` (N, C), and which positions they are for.

    The head runs on as many positions at a time as MAX_LOGITS allows, at least one.
    """
    size = max(1, MAX_LOGITS // model.config.vocab_size)
    for start in range(0, len(features), size):
        part = slice(start, start + size)
        yield part, model.head(features[part]).float()
