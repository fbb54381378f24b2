"""Hides tokens of a text, for masked language modelling (Devlin et al. 2018, BERT, section 3.1).

A fixed fraction of the positions of a row is chosen. In training, 80% of the chosen tokens become the mask token, 10% a
random token, and 10% stay as they are: the model cannot know which of the tokens that it sees are right. To measure a
model, all chosen tokens become the mask token: the question is then the same at every place.

What is hidden is a pure function of (seed, sample), so a resumed run hides the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.loader import Loader
from glassgpt.data.permutation import derive_keys
from glassgpt.data.shards import TokenArray
from glassgpt.errors import UserError, option
from glassgpt.tokenizers import Tokenizer

VALIDATION_SEED = 0  # every run hides the same tokens of a validation split, so that their figures compare
MASK_TOKENS = ("[MASK]", "<mask>", "<|mask|>")
EDGES = ("[CLS]", "[SEP]")  # BERT's rows begin with the first and end with the second
MASKED, REPLACED = 0.8, 0.1  # of the chosen tokens, in training; the others stay as they are

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class HiddenRows:
    """Rows with hidden tokens. `targets` are the tokens that were at `places`, in ascending order in each row."""

    inputs: Ids  # (B, T)
    places: Ids  # (B, K)
    targets: Ids  # (B, K)


class Hider:
    """Hides `fraction` of the tokens of a row, at least one. Raises UserError for a tokenizer without a mask token.

    BERT's rows begin with [CLS] and end with [SEP]. If the tokenizer has both, they are put around each row, and are
    never hidden.
    """

    def __init__(self, tokenizer: Tokenizer, fraction: float, seed: int = 0) -> None:
        specials = tokenizer.special_tokens
        found = [specials[name] for name in MASK_TOKENS if name in specials]
        if not found:
            add = option(**{"tokenizer.special_tokens": ["[MASK]"]})
            raise UserError(
                f"the {tokenizer.name} tokenizer has no mask token, which stands for a hidden token: add one with {add}"
            )
        self.mask_id = found[0]
        self.fraction, self.seed = fraction, seed
        self.frame = tuple(specials[name] for name in EDGES) if specials.keys() >= set(EDGES) else ()
        self._ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), list(specials.values()))

    def width(self, block_size: int) -> int:
        """How many tokens of a text a row of `block_size` positions holds. Raises UserError if there is no place."""
        if block_size <= len(self.frame):
            raise UserError(
                f"model.block_size = {block_size} leaves no place for text: each row also has [CLS] and [SEP]"
            )
        return block_size - len(self.frame)

    def count(self, n_tokens: int) -> int:
        """K, how many of the tokens of a row are hidden."""
        return max(1, round(self.fraction * n_tokens))

    def places_in_text(self, hidden: HiddenRows) -> Ids:
        """The places (B, K) counted without the token in front of each row."""
        return hidden.places - len(self.frame) // 2

    def hide(self, tokens: Ids, samples: Ids, *, training: bool) -> HiddenRows:
        """Hides tokens of rows (B, T'), T' = `width(T)`. Each row has a number in `samples` (B,)."""
        rows, n = tokens.shape
        k = self.count(n)
        inputs, places = tokens.astype(np.int64), np.empty((rows, k), np.int64)
        for row, sample in enumerate(samples):
            order, fates, others = np.split(derive_keys("mask", self.seed, int(sample), n=n + 2 * k), [n, n + k])
            chosen = places[row] = np.sort(np.argsort(order, kind="stable")[:k])
            inputs[row, chosen] = self._seen(tokens[row, chosen], fates, others) if training else self.mask_id
        targets = np.take_along_axis(tokens.astype(np.int64), places, axis=1)
        if self.frame:
            edge = np.ones((rows, 1), np.int64)
            inputs, places = np.hstack([edge * self.frame[0], inputs, edge * self.frame[1]]), places + 1
        return HiddenRows(inputs, places, targets)

    def _seen(self, tokens: Ids, fates: NDArray[np.uint64], others: NDArray[np.uint64]) -> Ids:
        """What stands in place of the chosen tokens (K,), given two random 64-bit numbers for each."""
        fate = fates / 2.0**64
        seen = np.where(fate < MASKED, self.mask_id, tokens)
        replaced = (fate >= MASKED) & (fate < MASKED + REPLACED)
        return np.where(replaced, self._ordinary[others % np.uint64(len(self._ordinary))], seen)


class MaskedLoader:
    """Batches of `batch_rows` windows with hidden tokens. The rows of a step are a pure function of (seed, step).

    Raises UserError for a text shorter than one window.
    """

    def __init__(self, tokens: TokenArray, hider: Hider, block_size: int, batch_rows: int) -> None:
        self.hider, self.batch_rows = hider, batch_rows
        self._windows = Loader(tokens, hider.width(block_size), batch_rows, hider.seed)

    def rows(self, step: int, start: int = 0, stop: int | None = None) -> HiddenRows:
        """Rows `start` to `stop` of the global batch of `step`; all rows by default."""
        stop = self.batch_rows if stop is None else stop
        tokens, _ = self._windows.rows(step, start, stop)
        return self.hider.hide(tokens.numpy(), step * self.batch_rows + np.arange(start, stop), training=True)
