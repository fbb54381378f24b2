"""What each attention head looks at: its pattern, scores that name well-known kinds of heads, and one score in detail.

Shapes: L blocks with attention, H heads, T positions, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.inspection.taps import parts
from glassgpt.inspection.trace import Trace, attention_blocks, check_position
from glassgpt.models import Model

# What a head may be named after, with the words for it. The names are fields of `HeadScores`.
KINDS = {
    "previous": "previous token",
    "induction": "induction",
    "duplicate": "same token before",
    "next": "next token",
    "first": "first token",
}
NAMED_FROM = 0.5  # a head that gives less than half of its attention to one of these has no name


@dataclass(frozen=True)
class HeadScores:
    """How a head spreads its attention, each score from 0 to 1. The tensors have one entry per head.

    All but the last are the mean share of a query's attention, over the queries for which it is defined. A score is 0
    if the text has no such query: a text in which no token occurs twice has no duplicates and no induction.
    """

    previous: Tensor  # to the position before
    duplicate: Tensor  # to earlier positions with the query's own token
    induction: Tensor  # to the positions after those: what came next the last time
    next: Tensor  # to the position after; 0 in a causal model
    first: Tensor  # to position 0
    entropy: Tensor  # of the pattern, as a share of the largest possible: 0 one position, 1 all positions equally

    def __getitem__(self, index: Any) -> HeadScores:
        """The scores of some heads: `scores[2, 1]` is head 1 of layer 2."""
        return HeadScores(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True)
class ScoreTerms:
    """How one query scores one key. The terms add up to the score, before a mask and before a bias if there is one."""

    q: Tensor  # (D,) the query
    k: Tensor  # (D,) the key
    terms: Tensor  # (D,) q · k / √D before the sum
    score: float
    weight: float  # the attention, after the softmax over all keys; 0 where the mask hides the key


def heads_of(trace: Trace) -> Tensor:
    """The attention patterns (L, H, T, T): row t holds the weights that query t gives to the keys.

    A row sums to 1; where a head has a sink, the sink has what is missing, see `sinks_of`. Layer l is block
    `attention_blocks(model)[l]`. A model without attention gives (0, 0, T, T).
    """
    T = trace.n_tokens
    patterns = [trace[f"blocks.{n}.attn.pattern"][0].float().cpu() for n in attention_blocks(trace.model)]
    return torch.stack(patterns) if patterns else torch.zeros(0, 0, T, T)


def sinks_of(trace: Trace) -> Tensor | None:
    """The weights (L, H, T) that queries give to the sink of their head and not to a key; None for a model without.

    L counts as in `heads_of`.
    """
    blocks = [parts(trace.model)[n] for n in attention_blocks(trace.model)]
    if not any(isinstance(getattr(block.attn, "sinks", None), Tensor) for block in blocks):
        return None
    return (1 - heads_of(trace).sum(dim=-1)).clamp(min=0)


def head_scores(pattern: Tensor, ids: Sequence[int], visible: Tensor | None = None) -> HeadScores:
    """The scores of heads with patterns (…, T, T) on the text `ids` of T tokens; each score has shape (…).

    Previous-token, duplicate-token and induction heads as in Olsson et al. 2022, "In-context Learning and Induction
    Heads". Entropy is divided by ln n, its largest value for a query that sees n positions. `visible`, which broadcasts
    to the pattern, is True where a query sees a position; by default it sees itself and those before it. The query at
    position 0 counts nowhere, because before it there is none.
    """
    T = pattern.size(-1)
    if len(ids) != T:
        raise UserError(f"the pattern is of {T} tokens and the text has {len(ids)}: give the ids of the same text")
    tokens = torch.tensor([int(id) for id in ids], device=pattern.device)
    later = torch.arange(T, device=pattern.device) > 0
    before = torch.eye(T, dtype=torch.bool, device=pattern.device).roll(-1, dims=1)  # row t: only column t - 1
    after = torch.eye(T, dtype=torch.bool, device=pattern.device).roll(1, dims=1)  # row t: only column t + 1
    earlier = torch.arange(T, device=pattern.device) < T - 1
    same = (tokens[:, None] == tokens).tril(diagonal=-1)  # [t, s]: token t also stood at s < t
    repeated = same.any(dim=1)
    first = torch.zeros_like(same)
    first[:, 0] = True
    seen = torch.ones_like(same).tril() if visible is None else visible.to(pattern.device)
    largest = seen.sum(dim=-1).log()
    spread = torch.special.entr(pattern).sum(dim=-1) / largest.clamp(min=1e-9)
    entropy = spread.clamp(max=1) * (largest > 0)  # a row that shares with a sink may exceed ln 2
    return HeadScores(
        previous=_mean_share(pattern, before, later),
        duplicate=_mean_share(pattern, same, repeated),
        induction=_mean_share(pattern, same.roll(1, dims=1), repeated),  # the last column of `same` is empty
        next=_mean_share(pattern, after, earlier),
        first=_mean_share(pattern, first, later),
        entropy=_mean(entropy, later),
    )


def repeated_ids(model: Model, length: int = 32, seed: int = 0) -> list[int]:
    """Random tokens said twice: the text on which heads are compared, as only looking back predicts its second half.

    The first half has `length` tokens, all different; fewer for a smaller vocabulary or a shorter `block_size`.
    """
    vocab_size, block_size = model.config.vocab_size, model.config.block_size
    order = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(seed))
    return order[: min(length, block_size // 2)].repeat(2).tolist()


def head_kind(scores: HeadScores) -> tuple[str, float] | None:
    """The kind of one head (a key of `KINDS`) and its score; None if no kind takes half of the attention.

    A head rests on the first token where it finds nothing to attend to, so any other kind takes precedence over that.
    """
    found = [(kind, float(getattr(scores, kind))) for kind in KINDS]
    named = [(kind, score) for kind, score in found if score >= NAMED_FROM]
    return max(named, key=lambda pair: (pair[0] != "first", pair[1]), default=None)


def describe_head(scores: HeadScores) -> str | None:
    """One head in words, such as "previous token 94%"; None if it is of no known kind."""
    found = head_kind(scores)
    return None if found is None else f"{KINDS[found[0]]} {found[1]:.0%}"


def score_terms(trace: Trace, layer: int, head: int, query: int, key: int) -> ScoreTerms:
    """The arithmetic behind one entry of a pattern: what each of the D dimensions adds to the score of a key.

    `layer` is the number of a block. Raises UserError for a head or a position that does not exist.
    """
    blocks = attention_blocks(trace.model)
    if layer not in blocks:
        raise UserError(f"no block {layer} has attention; blocks that have it: {', '.join(map(str, blocks)) or 'none'}")
    name = f"blocks.{layer}.attn"
    pattern, queries, keys = (trace[f"{name}.{step}"][0] for step in ("pattern", "q", "k"))
    if not 0 <= head < len(pattern):
        raise UserError(f"there is no head {head}: block {layer} has {len(pattern)}, counted from 0")
    check_position(trace, query, "query")
    check_position(trace, key, "key")
    q = queries[head, query].float().cpu()
    k = keys[head * len(keys) // len(queries), key].float().cpu()  # with grouped-query attention, heads share keys
    terms = q * k * (scale_of(trace.model, layer) or 1 / math.sqrt(len(q)))
    return ScoreTerms(q, k, terms, float(terms.sum()), float(pattern[head, query, key]))


def scale_of(model: Model, layer: int) -> float | None:
    """What the attention of a block multiplies its products q · k by; None: the usual 1 / √D."""
    scale: float | None = getattr(parts(model)[layer].inner, "scale", None)
    return scale


def _mean_share(pattern: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
    """The attention to the marked keys (T, T), as a mean over the marked queries (T,)."""
    return _mean((pattern * keys).sum(dim=-1), queries)


def _mean(values: Tensor, queries: Tensor) -> Tensor:
    """The mean of values (…, T) over the marked queries (T,); 0 if there are none."""
    return (values * queries).sum(dim=-1) / queries.sum().clamp(min=1)
