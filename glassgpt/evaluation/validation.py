"""The loss of a model on held-out tokens, in nats per token and in bits per byte."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from glassgpt.data.shards import TokenArray
from glassgpt.errors import UserError
from glassgpt.evaluation.logits import iter_logits, rows_per_pass
from glassgpt.models import Model, evaluating
from glassgpt.models.context import Documents
from glassgpt.models.sizes import attention_window
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.distributed import Ranks
from glassgpt.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Evaluation:
    """`loss` in nats per token, over `tokens` predicted tokens.

    `bits_per_byte` divides the same sum by the bytes of text that the tokens represent, which makes tokenizers
    comparable: sum of nats / (ln 2 · bytes). Special tokens represent no text, so it does not count them.
    """

    loss: float
    bits_per_byte: float
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))  # above that, a float overflows

    def figures(self) -> dict[str, float]:
        """The figures as metrics.jsonl names them."""
        return {"val/loss": self.loss, "val/bits_per_byte": self.bits_per_byte, "val/tokens": self.tokens}


@dataclass(frozen=True)
class Counting:
    """What counting predicts for every token of a split, and its weight in a mixture with a model."""

    losses: np.ndarray  # of each token after the first, in nats
    weight: float

    def mixed_with(self, losses: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """The losses (rows, T) of the mixed probabilities, for windows that start at `starts`."""
        counted = self.losses[starts[:, None] + np.arange(losses.shape[1])]
        with np.errstate(divide="ignore"):  # a weight of 0 has the logarithm -∞, which is right
            return -np.logaddexp(np.log(1 - self.weight) - losses, np.log(self.weight) - counted)


def bytes_per_token(tokenizer: Tokenizer) -> np.ndarray:
    """(vocab_size,) integers: the number of bytes of text that each id represents."""
    return np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)], dtype=np.int64)


@torch.no_grad()
def evaluate(
    model: Model,
    tokens: TokenArray,
    token_bytes: np.ndarray,
    runtime: Runtime,
    *,
    max_tokens: int | None = None,
    stride: int | None = None,
    eot_id: int | None = None,
    rows: int = 64,
    counting: Counting | None = None,
) -> Evaluation:
    """The loss over consecutive windows of `block_size` targets; the last window may be shorter.

    With a `stride` the windows overlap. Each window holds `block_size` tokens and starts `stride` tokens after the
    previous one. A target counts only in the first window that contains it, with at least `block_size - stride` tokens
    before it (Hugging Face, "Perplexity of fixed-length models"). The loss is lower, because only the first targets
    have a short context; it costs `block_size / stride` times as much.

    With an `eot_id`, each document is predicted separately. With `counting`, the prediction is a mixture of the model's
    and of what counting predicts.

    With `max_tokens`, only evenly spaced full windows with about that many targets are used, the same at every call.
    At most `rows` windows go through the blocks at a time, and the head on a part of them, as memory allows
    (evaluation/logits.py). Several ranks split the windows; every rank must call this function and gets the full
    result. It draws no random numbers and restores the model's mode.
    Raises UserError for fewer than two tokens, an id that `token_bytes` does not have, or a stride out of range.
    """
    block_size = model.config.block_size
    if stride is not None and not 1 <= stride < block_size:
        raise UserError(f"stride {stride} is out of range: it must be at least 1 and below block_size = {block_size}")
    if len(tokens) < 2:
        raise UserError(f"cannot evaluate on {len(tokens)} token(s): a prediction needs at least 2")
    width, step = (block_size + 1, block_size) if stride is None else (block_size, stride)
    rows = rows_per_pass(model.config, block_size, rows)
    ranks = runtime.ranks
    batches = window_batches(len(tokens), width, step, max_tokens, rows * ranks.world_size)
    nats = nats_of_text = n_tokens = n_bytes = 0.0
    with evaluating(model):
        for starts, counted in rank_batches(batches, ranks):
            windows = np.stack([tokens.slice(start, min(start + width, len(tokens))) for start in starts])
            check_ids(windows, len(token_bytes))
            losses = _token_losses(model, windows, eot_id, runtime)  # (rows, T)
            if counting is not None:
                losses = counting.mixed_with(losses, starts)
            new = counted & _new_targets(starts, losses.shape[1], width - step - 1)
            losses, sizes = losses[new], token_bytes[windows[:, 1:]][new]
            nats += float(losses.sum())
            nats_of_text += float(losses[sizes > 0].sum())
            n_tokens += losses.size
            n_bytes += int(sizes.sum())
    nats, nats_of_text, n_tokens, n_bytes = ranks.sum([nats, nats_of_text, n_tokens, n_bytes])
    return Evaluation(nats / n_tokens, nats_of_text / (math.log(2) * max(1, n_bytes)), int(n_tokens))


def window_batches(n_tokens: int, width: int, step: int, max_tokens: int | None, rows: int) -> list[np.ndarray]:
    """Start positions of the windows of `width` tokens, each `step` after the one before, in batches of equal length.

    The last window ends at the last token, and may be shorter. With `max_tokens`, see `evaluate`.
    """
    n_windows = 1 + max(0, math.ceil((n_tokens - width) / step))  # the last window ends at the last token
    starts = np.arange(n_windows) * step
    full, shorter = starts[starts + width <= n_tokens], starts[starts + width > n_tokens]
    if max_tokens is not None and len(full) * step > max_tokens:
        chosen = max(1, max_tokens // step)
        full, shorter = full[np.arange(chosen) * len(full) // chosen], shorter[:0]
    batches = [full[i : i + rows] for i in range(0, len(full), rows)]
    return [*batches, shorter] if len(shorter) else batches


def _new_targets(starts: np.ndarray, n_targets: int, overlap: int) -> np.ndarray:
    """(rows, n_targets) booleans: False for the first `overlap` targets of a window that an earlier one counted."""
    return (np.arange(n_targets) >= overlap) | (starts == 0)[:, None]


def rank_batches(batches: list[np.ndarray], ranks: Ranks) -> Iterator[tuple[np.ndarray, bool]]:
    """This rank's part of each batch, and whether it counts.

    All ranks gather sharded weights together, so each must make the same number of passes. If there are fewer windows
    than ranks, a rank without a window repeats the first one and does not count it.
    """
    for starts in batches:
        mine = starts[slice(*ranks.rank_slice(len(starts)))]
        yield (mine, True) if len(mine) else (starts[:1], False)


def check_ids(windows: np.ndarray, vocab_size: int) -> None:
    """Raises UserError for an id outside the vocabulary."""
    if (largest := windows.max()) >= vocab_size:
        raise UserError(
            f"token id {largest} in the data to evaluate on is outside the vocabulary of {vocab_size}: its shards are"
            " damaged or belong to another tokenizer; check them with glassgpt data verify"
        )


def _token_losses(model: Model, windows: np.ndarray, eot_id: int | None, runtime: Runtime) -> np.ndarray:
    """The loss of each target, (rows, T) in float64, for windows (rows, T + 1)."""
    block = torch.from_numpy(windows).to(runtime.device)
    inputs, targets = block[:, :-1], block[:, 1:]
    context = {} if eot_id is None else {"context": Documents(inputs, eot_id, attention_window(model.config))}
    losses = torch.empty(targets.numel(), device=runtime.device)
    with runtime.autocast():
        features = model.features(inputs, **context).flatten(0, 1)
        for part, logits in iter_logits(model, features):
            losses[part] = F.cross_entropy(logits, targets.flatten()[part], reduction="none")
    result: np.ndarray = losses.view(len(windows), -1).cpu().double().numpy()
    return result
