"""Which positions a query may attend to: those before it or all of them, and in a layer with a window the near ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glassgpt.errors import counted
from glassgpt.inspection.taps import parts
from glassgpt.models import Model


@dataclass(frozen=True)
class Sight:
    """What the queries of one attention layer may attend to.

    A causal query sees itself and the positions before it, and with a `window` only the last `window` of these.
    Otherwise it sees all positions.
    """

    causal: bool = True
    window: int | None = None

    @property
    def name(self) -> str:
        """The layer's kind in two words: "window 16" or "full"."""
        return "full" if self.window is None else f"window {self.window}"

    @property
    def told(self) -> str:
        """What a token sees, as the end of a sentence that begins with "it sees"."""
        if self.window is not None:
            return f"a window of {counted(self.window, 'token')}, its own included"
        return "itself and all tokens before it" if self.causal else "all tokens, before and after"

    def keys(self, query: int, n_keys: int) -> range:
        """The positions that the query at `query` sees, of `n_keys`."""
        if not self.causal:
            return range(n_keys)
        return range(0 if self.window is None else max(0, query + 1 - self.window), query + 1)

    def visible(self, n_queries: int, n_keys: int) -> Tensor:
        """(n_queries, n_keys) booleans, True where a query sees a key."""
        if not self.causal:
            return torch.ones(n_queries, n_keys, dtype=torch.bool)
        distance = torch.arange(n_queries)[:, None] - torch.arange(n_keys)
        return (distance >= 0) & (distance < (self.window or n_keys))


def sights_of(model: Model) -> list[Sight]:
    """What the queries of each block with attention see, in the order of `attention_blocks`."""
    return [
        Sight(causal=getattr(part.inner, "causal", True), window=getattr(part.attn, "band", None))
        for part in parts(model)
        if part.inner is not None
    ]


def visible_of(model: Model, n_tokens: int) -> Tensor:
    """What the queries of each of the L blocks with attention see of a text, (L, 1, T, T), for `head_scores`."""
    each = [sight.visible(n_tokens, n_tokens) for sight in sights_of(model)]
    return torch.stack(each).unsqueeze(1) if each else torch.ones(0, 1, n_tokens, n_tokens, dtype=torch.bool)
