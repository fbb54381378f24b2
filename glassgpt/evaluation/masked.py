"""How well a model finds hidden tokens: masked language modelling on held-out text, beside what counting finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from glassgpt.data.masking import Hider
from glassgpt.data.shards import TokenArray
from glassgpt.errors import UserError
from glassgpt.evaluation.logits import MAX_LOGITS, rows_per_pass
from glassgpt.evaluation.ngram import NGramModel
from glassgpt.evaluation.validation import check_ids, rank_batches, window_batches
from glassgpt.models import EncoderModel, evaluating
from glassgpt.runtime.device import Runtime
from glassgpt.training.losses import MaskedBatch, hidden_logits

ORDER = 5  # of the n-gram beside which a model is shown
MOST_PROBABILITIES = 50_000_000  # that the n-gram gives at once: 400 MB


@dataclass(frozen=True)
class MaskedEvaluation:
    """`loss` in nats per hidden token, and `accuracy`, the share that the model finds, over `tokens` hidden tokens."""

    loss: float
    accuracy: float
    tokens: int

    def figures(self) -> dict[str, float]:
        """The figures as metrics.jsonl names them."""
        return {"val/loss": self.loss, "val/accuracy": self.accuracy, "val/hidden": self.tokens}


@dataclass(frozen=True)
class CountingAccuracy:
    """The share of the same hidden tokens that counting finds.

    `most_frequent` always names the most frequent token of the training split. `ngram` names the token that follows the
    four tokens before it most probably. It sees these four even where the model does not, and nothing after them. It is
    None for a vocabulary that is too large to count so.
    """

    most_frequent: float
    ngram: float | None


@torch.no_grad()
def evaluate_masked(
    model: EncoderModel,
    tokens: TokenArray,
    hider: Hider,
    runtime: Runtime,
    *,
    max_tokens: int | None = None,
    rows: int = 64,
) -> MaskedEvaluation:
    """Hides tokens of consecutive windows of a split, all of them behind the mask token, and counts what is found.

    With `max_tokens`, only evenly spaced windows with about that many tokens are used, the same at every call. Several
    ranks split the windows; every rank must call this function and gets the full result. It restores the model's mode.
    Raises UserError for an empty split, and for an id outside the vocabulary.
    """
    width = hider.width(model.config.block_size)
    ranks, n_ids = runtime.ranks, model.config.vocab_size
    if len(tokens) == 0:
        raise UserError("cannot evaluate on 0 tokens: there is nothing to hide")
    rows = rows_per_pass(model.config, model.config.block_size, rows)
    rows = max(1, min(rows, MAX_LOGITS // (hider.count(width) * n_ids)))
    nats = found = n_tokens = 0.0
    with evaluating(model):
        for starts, counted in rank_batches(_batches(tokens, width, max_tokens, rows * ranks.world_size), ranks):
            windows = _windows(tokens, starts, width)
            check_ids(windows, n_ids)
            hidden = hider.hide(windows, starts // width, training=False)
            batch = MaskedBatch.of(hidden, runtime.device)
            with runtime.autocast():
                logits = hidden_logits(model, batch).float().flatten(0, 1)
            targets = batch.targets.flatten()
            if counted:
                nats += float(F.cross_entropy(logits, targets, reduction="none").double().sum())
                found += int((logits.argmax(-1) == targets).sum())
                n_tokens += targets.numel()
    nats, found, n_tokens = ranks.sum([nats, found, n_tokens])
    return MaskedEvaluation(nats / n_tokens, found / n_tokens, int(n_tokens))


def count_masked(
    train: TokenArray, val: TokenArray, hider: Hider, block_size: int, vocab_size: int
) -> CountingAccuracy:
    """What counting finds at the places that `evaluate_masked` hides in the whole validation split."""
    width = hider.width(block_size)
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(train), 1 << 20):
        counts += np.bincount(train.slice(start, min(start + (1 << 20), len(train))), minlength=vocab_size)
    places, targets = [], []
    for starts in _batches(val, width, None, 64):
        hidden = hider.hide(_windows(val, starts, width), starts // width, training=False)
        places.append((starts[:, None] + hider.places_in_text(hidden)).ravel())
        targets.append(hidden.targets.ravel())
    at, true = np.concatenate(places), np.concatenate(targets)
    ngram = None
    if len(val) * vocab_size <= MOST_PROBABILITIES:
        after = NGramModel.fit(train, vocab_size, ORDER).probabilities(val.slice(0, len(val))).argmax(1)
        guesses = np.where(at > 0, after[at - 1], counts.argmax())
        ngram = float((guesses == true).mean())
    return CountingAccuracy(float((true == counts.argmax()).mean()), ngram)


def _batches(tokens: TokenArray, width: int, max_tokens: int | None, rows: int) -> list[np.ndarray]:
    """Start positions of windows of `width` tokens, in batches of equal window length."""
    return window_batches(len(tokens), width, width, max_tokens, rows)


def _windows(tokens: TokenArray, starts: np.ndarray, width: int) -> np.ndarray:
    """The windows that begin at `starts`, (rows, T)."""
    return np.stack([tokens.slice(start, min(start + width, len(tokens))) for start in starts])
