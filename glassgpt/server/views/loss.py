"""Loss: how much each token of a text surprises a model, and what the model expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from glassgpt.errors import UserError
from glassgpt.inspection.surprise import token_losses
from glassgpt.server.views.inside import Question
from glassgpt.server.wire import pack
from glassgpt.server.workbench import Bench
from glassgpt.tokenizers.base import begin_with_bos
from glassgpt.tokenizers.pieces import tokens_of

MOST_TOKENS = 4_096  # of a text: each is a button of the page
TOP = 5  # expected tokens


def look_at_losses(bench: Bench, question: Question) -> bytes:
    """The loss of each token but the first (T - 1,), and the tokens that were expected with their probabilities.

    A text longer than `block_size` is read in windows that overlap by half, so that each prediction has half a window
    before it. `bits_per_byte` counts the bytes of the predicted tokens, as evaluation does.
    """
    bench.check_decoder()
    tokenizer, config = bench.run.tokenizer, bench.run.config.model
    if not question.text:
        raise UserError("the text is empty: type two tokens or more")
    ids = begin_with_bos(tokenizer, tokenizer.encode(question.text))
    if len(ids) < 2:
        raise UserError("this text is a single token, and the first token has no prediction: type more")
    if len(ids) > MOST_TOKENS:
        raise UserError(f"this text has {len(ids):,} tokens, and {MOST_TOKENS:,} can be measured: shorten it")
    stride = max(1, config.block_size // 2) if len(ids) > config.block_size + 1 and config.block_size > 1 else None
    found = token_losses(bench.model, ids, TOP, stride=stride)
    losses, expected = found.losses.numpy(), found.expected_ids.numpy().astype(np.int32)
    sizes = np.array([len(tokenizer.token_bytes(id)) for id in ids[1:]])
    nats_of_text, n_bytes = float(losses[sizes > 0].sum(dtype=np.float64)), int(sizes.sum())
    known = [int(id) for id in np.unique(expected) if id < tokenizer.vocab_size]  # a model may have more ids
    meta: dict[str, Any] = {
        "tokens": tokens_of(tokenizer, ids),
        "names": dict(zip(known, tokens_of(tokenizer, known), strict=True)),
        "step": bench.run.step,
        "mean": _finite(float(losses.mean(dtype=np.float64))),
        "bits_per_byte": _finite(nats_of_text / (math.log(2) * n_bytes)) if n_bytes else None,
        "uniform": math.log(config.vocab_size),
        "block_size": config.block_size,
        "stride": stride,
    }
    arrays = {
        "losses": losses,
        "expected_ids": expected,
        "expected_probabilities": found.expected_probabilities.numpy(),
    }
    return pack(meta, arrays)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
