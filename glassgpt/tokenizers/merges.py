"""Learns merges from word counts: the second half of training a BPE tokenizer.

Byte-pair encoding (Gage 1994; for words, Sennrich et al. 2016, https://arxiv.org/abs/1508.07909): repeatedly merge the
most frequent pair of neighbouring symbols into a new symbol. An index stores the places of every pair, so that each
merge visits only the places of its own pair.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Mapping
from itertools import pairwise

Pair = tuple[int, int]

NONE = -1  # not a symbol: before the first word, between words, after the last, and at a place merged into another


class PairIndex:
    """The distinct words as a linked list of places (array positions), with the places and the count of every pair.

    A merge writes the new symbol into the left place of the pair and unlinks the right place. A place is added to the
    list of a pair when the pair forms there. It stays in the list when a neighbouring merge destroys the pair, so an
    entry is checked when it is used.
    """

    def __init__(self, words: Mapping[bytes, int]) -> None:
        self.symbols = array("i", [NONE])
        self.counts: dict[Pair, int] = {}
        self.places: dict[Pair, array[int]] = {}
        self._weights = array("q", [0])  # how often the word at a place occurs
        for word, count in words.items():
            self._lay_out(word, count)
        length = len(self.symbols)
        self._left = array("q", range(-1, length - 1))
        self._right = array("q", range(1, length + 1))

    def _lay_out(self, word: bytes, count: int) -> None:
        start = len(self.symbols)
        for place, pair in enumerate(pairwise(word), start):
            self._add(pair, place, count)
        self.symbols.extend(word)
        self.symbols.append(NONE)
        self._weights.extend([count] * (len(word) + 1))

    def _add(self, pair: Pair, place: int, weight: int) -> None:
        if pair in self.counts:
            self.counts[pair] += weight
            self.places[pair].append(place)
        else:
            self.counts[pair] = weight
            self.places[pair] = array("q", [place])

    def merge(self, pair: Pair, new: int) -> list[Pair]:
        """Replace `pair` by the symbol `new` everywhere, from left to right. Returns the newly formed pairs."""
        first, second = pair
        symbols, left, right, counts = self.symbols, self._left, self._right, self.counts
        formed: dict[Pair, None] = {}
        for place in self.places.pop(pair):  # in ascending order, so that "aaa" becomes "aa" "a"
            other = right[place]
            if symbols[place] != first or symbols[other] != second:
                continue
            weight = self._weights[place]
            before, after = left[place], right[other]
            if symbols[before] != NONE:
                counts[symbols[before], first] -= weight
                self._add((symbols[before], new), before, weight)
                formed[symbols[before], new] = None
            if symbols[after] != NONE:
                counts[second, symbols[after]] -= weight
                self._add((new, symbols[after]), place, weight)
                formed[new, symbols[after]] = None
            symbols[place], symbols[other] = new, NONE
            right[place], left[after] = after, place
        del counts[pair]
        return [pair for pair in formed if counts[pair] > 0]  # "aaaa" forms "aa" "a" only temporarily: then "aa" "aa"


def learn_merges(words: Mapping[bytes, int], first_id: int) -> Iterator[Pair]:
    """The pairs to merge, in order, until no pair is left. Merge number n makes the symbol `first_id + n`.

    `words` maps each word to how often it occurs. Each byte of a word is one initial symbol.

    The most frequent pair is next; on a tie, the one with the lowest ids. Overlapping pairs count too ("aaa" has two).
    This is the order of `BpeTrainer` in Hugging Face's tokenizers.
    """
    index = PairIndex(words)
    queue = [(-count, pair) for pair, count in index.counts.items()]
    heapq.heapify(queue)
    new = first_id
    while queue:
        count, pair = heapq.heappop(queue)
        current = index.counts[pair]
        if current < -count:  # the count fell while the pair was in the queue: insert it again with its current count
            if current > 0:
                heapq.heappush(queue, (-current, pair))
            continue
        yield pair
        for formed in index.merge(pair, new):
            heapq.heappush(queue, (-index.counts[formed], formed))
        new += 1
