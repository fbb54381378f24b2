"""All heads of a model on one text: which are clearly of a kind, and each as a small map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import groupby
from typing import Any

from torch import Tensor

from glassgpt.errors import counted
from glassgpt.inspection.attention import KINDS, HeadScores, head_kind
from glassgpt.inspection.sight import Sight
from glassgpt.report.look.attention import AttentionView, Kind
from glassgpt.report.look.drawing import share

STEPS = 8  # of colour in a small map
MOST_MAPS = 12
At = tuple[int, int]  # the number of a block and of a head in it


@dataclass(frozen=True, repr=False, eq=False)
class Heads:
    """The L·H heads of a model on a text of T tokens. `blocks` are the numbers of the L blocks that have attention."""

    source: str
    tokens: list[dict[str, Any]]
    blocks: list[int]
    patterns: Tensor  # (L, H, T, T)
    scores: HeadScores  # each (L, H)
    sights: list[Sight]  # of the blocks
    sinks: Tensor | None  # (L, H, T), see `sinks_of`

    @property
    def n_head(self) -> int:
        """H, the number of heads of a block."""
        return self.patterns.size(1)

    @cached_property
    def kinds(self) -> dict[At, Kind]:
        """The kind of each head."""
        return {
            (block, head): head_kind(self.scores[layer, head])
            for layer, block in enumerate(self.blocks)
            for head in range(self.n_head)
        }

    @cached_property
    def clearest(self) -> list[At]:
        """All heads, the one that is most clearly of a kind first; those that rest on the first token come later."""
        return sorted(self.kinds, key=self._clearness, reverse=True)

    def _clearness(self, at: At) -> tuple[int, float]:
        if (kind := self.kinds[at]) is not None:
            return (1 if kind[0] == "first" else 2), kind[1]
        scores = self.scores[self.blocks.index(at[0]), at[1]]
        return 0, max(float(scores.previous), float(scores.induction), float(scores.duplicate))

    def pattern(self, layer: int, head: int) -> Tensor:
        """The pattern (T, T) of one head."""
        return self.patterns[self.blocks.index(layer), head]

    def view(self, layer: int, head: int) -> AttentionView:
        """The view of one head."""
        kinds = [[self.kinds[block, number] for number in range(self.n_head)] for block in self.blocks]
        sinks = None if self.sinks is None else self.sinks[self.blocks.index(layer), head]
        return AttentionView(
            self.source, self.tokens, self.tokens, layer, head, self.pattern(layer, head), self.blocks, kinds,
            self.sights, sinks,
        )  # fmt: skip

    @property
    def answer(self) -> str:
        """How many heads are of which kind, in a sentence."""
        found = Counter(kind[0] for kind in self.kinds.values() if kind is not None)
        if len(self.kinds) == 1:
            (kind,) = self.kinds.values()
            return f"Its only head is of {f'the kind {KINDS[kind[0]]}' if kind else 'no known kind'} on this text."
        if not found:
            return f"None of its {counted(len(self.kinds), 'head')} is of a known kind on this text."
        kinds = ", ".join(f"{KINDS[kind]} {found[kind]}" for kind in KINDS if kind in found)
        named = f"{found.total()} of its {counted(len(self.kinds), 'head')}"
        return f"On this text, {named} {'is' if found.total() == 1 else 'are'} of a known kind: {kinds}."

    def chosen(self, most: int = MOST_MAPS) -> list[At]:
        """The heads that are worth a picture, at most `most`, in the order of the model.

        They are those with a name, but of those that rest on the first token, and of those without a name, only the
        clearest one of a block without any other.
        """
        named = [at for at in self.clearest if self._clearness(at)[0] == 2]
        blocks = {layer for layer, _ in named}
        for layer, head in self.clearest:
            if layer not in blocks:
                blocks.add(layer)
                named.append((layer, head))
        return sorted(named[:most])

    def maps_html(self, most: int = MOST_MAPS) -> str:
        """Small maps of the chosen heads, each with its name below it."""
        return f'<div class="maps">{"".join(self._map(at) for at in self.chosen(most))}</div>'

    def _map(self, at: At) -> str:
        kind = self.kinds[at]
        name = f"head {at[0]}.{at[1]}"
        words = "no known kind" if kind is None else f"{KINDS[kind[0]]} {share(kind[1])}"
        return (
            f"<figure>{small_map(self.pattern(*at).tolist(), f'{name}: {words}')}"
            f"<figcaption>{name}<small>{escape(words)}</small></figcaption></figure>"
        )


def small_map(pattern: Sequence[Sequence[float]], words: str) -> str:
    """A pattern of T tokens as an SVG picture without labels, a cell of 1×1 for each weight. Weak weights are left out.

    `words` say what it shows to those who do not see it.
    """
    lines: dict[int, list[str]] = {}
    for row, weights in enumerate(pattern):
        column = 0
        for step, equal in groupby(map(_step, weights)):
            length = sum(1 for _ in equal)
            if step > 0:
                lines.setdefault(step, []).append(f"M{column} {row}h{length}")
            column += length
    size = len(pattern)
    paths = "".join(f'<path stroke-opacity="{step / STEPS:.3g}" d="{"".join(lines[step])}"/>' for step in sorted(lines))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -0.5 {size} {size}" role="img"'
        f' aria-label="{escape(words)}" shape-rendering="crispEdges">{paths}</svg>'
    )


def _step(weight: float) -> int:
    """The step of colour of a weight, 0 for none."""
    return round(weight * STEPS) if weight == weight else 0  # a model that diverged has NaN
