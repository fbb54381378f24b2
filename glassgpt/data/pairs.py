"""Pairs of a source and a target, for sequence-to-sequence training: the rules that make them of a text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.examples import Examples
from glassgpt.data.permutation import Permutation
from glassgpt.errors import UserError, counted, option, unknown
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT

Pair = tuple[str, str]  # source and target

RULES_VERSION = 2  # of the rules: if they make other pairs of a text, those in the cache no longer count
PIECE = 60  # characters: a longer line is cut between words
PADDING_TOKENS = ("<pad>", "[PAD]")
STOP_TOKENS = ("</s>", END_OF_TEXT)


def _split_at_tabs(text: str) -> list[Pair]:
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        source, tab, target = line.partition("\t")
        if not (source and tab and target) or "\t" in target:
            raise UserError(
                f"line {number} of the text is not a pair, {line[:40]!r}: write the source, one tab and the target"
            )
        pairs.append((source, target))
    return pairs


def _reverse_words(text: str) -> list[Pair]:
    """In an order that does not depend on the text, so that the last ones are as long and as common as the others.

    Words that differ only in case stand together: else "Cat" would be in training, and "cat" among the unseen words.
    """
    found = sorted({word for word in re.findall(r"[^\W\d_]+", text) if len(word) > 1})
    variants: dict[str, list[str]] = {}
    for word in found:
        variants.setdefault(word.lower(), []).append(word)
    kinds = sorted(variants)
    order = Permutation(max(1, len(kinds)), "pairs")(np.arange(len(kinds)))
    return [(word, word[::-1]) for i in order for word in variants[kinds[i]]]


def _drop_vowels(text: str) -> list[Pair]:
    """Each source once: else the names of speakers in a play would be in training, and among the unseen lines."""
    pieces = (piece for line in text.splitlines() for piece in textwrap.wrap(line, PIECE))
    pairs: dict[str, str] = {}
    for piece in pieces:
        pairs.setdefault(re.sub("[aeiouAEIOU]", "", piece), piece)
    return [(source, target) for source, target in pairs.items() if source.strip()]


RULES: dict[str, Callable[[str], list[Pair]]] = {
    "tab": _split_at_tabs,
    "reverse": _reverse_words,
    "vowels": _drop_vowels,
}


def make_pairs(text: str, rule: str) -> list[Pair]:
    """The pairs that a rule makes of a text. Raises UserError for an unknown rule, or a line that is no pair.

    - tab: each line is a source, a tab, and its target;
    - reverse: a source is a word, each one once, and the target has its letters in reverse order;
    - vowels: a source is a line without its vowels, each one once, and the target is the line.
    """
    if rule not in RULES:
        raise unknown("data.pairs", rule, RULES)
    return RULES[rule](text)


def split_pairs(pairs: Sequence[Pair], val_fraction: float) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """(training pairs, validation pairs): the first 1 - val_fraction of them, and the rest."""
    n_train = int((1 - val_fraction) * len(pairs))
    if n_train == 0 or n_train == len(pairs):
        raise UserError(
            f"{counted(len(pairs), 'pair')} cannot be split into training and validation ({val_fraction:.0%} at the"
            " end): give a longer text, with more of the pairs that data.pairs describes"
        )
    return pairs[:n_train], pairs[n_train:]


@dataclass(frozen=True)
class Ends:
    """The tokens with which a target starts and stops. A source ends with the one that stops a target, too.

    T5's and Marian's targets start with the padding and stop with </s>. Those of others do both with <|endoftext|>.
    """

    start_id: int
    stop_id: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Ends:
        """Raises UserError if the tokenizer has no token that stops a target."""
        specials = tokenizer.special_tokens
        stop = next((specials[name] for name in STOP_TOKENS if name in specials), None)
        if stop is None:
            add = option(**{"tokenizer.special_tokens": [END_OF_TEXT]})
            raise UserError(f"the {tokenizer.name} tokenizer has no token that ends a target: add one with {add}")
        padding = next((specials[name] for name in PADDING_TOKENS if name in specials), stop)
        return cls(padding, stop)


def check_lengths(examples: Examples, block_size: int) -> None:
    """Raises UserError, with the longest one, if a source or a target is longer than `block_size`."""
    longest = 0
    for number in np.flatnonzero(examples.lengths > block_size):  # of the others, no part can be too long
        longest = max(longest, *(len(part) for part in split_pair(examples, int(number))))
    if longest > block_size:
        raise UserError(
            f"the longest source or target has {longest:,} tokens, and model.block_size is {block_size:,}: give it"
            f" {option(**{'model.block_size': longest})}, or shorter pairs"
        )


def split_pair(examples: Examples, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ids of a source and of its target, each with the stop at its end."""
    ids, mask = examples.ids(number), examples.mask(number)
    return ids[~mask], ids[mask]
