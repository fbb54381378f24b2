"""Speculative decoding: somebody cheap drafts a few tokens, and the model checks all of them in one pass.

A pass over five tokens takes hardly longer than a pass over one, because both read all weights once. So each draft that
the model accepts saves a pass. Drafts are accepted and replaced in such a way that every token has exactly the
distribution that the model gives it (Leviathan et al. 2023, "Fast Inference from Transformers via Speculative
Decoding"). With temperature 0 the text is that of the model alone.

Drafts come from the text so far (`Lookup`) or from a smaller model (`DraftModel`).

Shapes: n drafts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.generation.engine import generate
from glassgpt.generation.sampling import SamplingConfig, check_finite, next_token_probabilities
from glassgpt.models import ContextModel, Model, evaluating
from glassgpt.models.context import KVCache

N_DRAFTS = 4


class Drafter(Protocol):
    """Proposes how one text goes on. A drafter may remember the text, so every text needs one of its own."""

    def draft(
        self, ids: Sequence[int], n: int, config: SamplingConfig, generator: torch.Generator | None
    ) -> tuple[list[int], Tensor | None]:
        """Up to `n` ids that may follow `ids`, and the distributions (n, V) from which they were drawn.

        The distributions are None if the ids were not drawn, but were certain.
        """


class Lookup:
    """Finds the last few ids earlier in the text, and proposes what followed them there.

    It helps where a text repeats itself: code, lists, names, quotations (Saxena 2023, "Prompt Lookup Decoding").
    """

    def __init__(self, longest: int = 4, shortest: int = 2) -> None:
        self._lengths = range(longest, shortest - 1, -1)
        self._ends: dict[tuple[int, ...], int] = {}  # after which position a row of ids was seen last
        self._n_seen = 0

    def draft(
        self, ids: Sequence[int], n: int, config: SamplingConfig, generator: torch.Generator | None
    ) -> tuple[list[int], None]:
        """See `Drafter`."""
        for end in range(self._n_seen + 1, len(ids)):  # not the last ids: they are what is looked for
            for length in self._lengths:
                if length <= end:
                    self._ends[tuple(ids[end - length : end])] = end
        self._n_seen = len(ids) - 1
        for length in self._lengths:
            found = self._ends.get(tuple(ids[-length:]))
            if found is not None and length < len(ids):
                return list(ids[found : found + n]), None
        return [], None


class DraftModel:
    """A smaller model with the same vocabulary, which draws its drafts with the settings of the text.

    Only its first `vocab_size` logits are used. Raises UserError if the vocabularies have different sizes, or if the
    draft model takes no context.
    """

    def __init__(self, model: Model, large: Model, *, vocab_size: int | None = None) -> None:
        self._model = check_draft(model, large)
        self._vocab_size = vocab_size
        self._cache = KVCache(model.config.block_size)
        self._read: list[int] = []  # the ids in the cache

    def draft(
        self, ids: Sequence[int], n: int, config: SamplingConfig, generator: torch.Generator | None
    ) -> tuple[list[int], Tensor | None]:
        """See `Drafter`. There are no drafts for a text that does not fit into the window of the draft model."""
        if n == 0 or len(ids) + n > self._model.config.block_size:
            return [], None
        device = next(self._model.parameters()).device
        n_same = 0
        while n_same < min(len(self._read), len(ids) - 1) and self._read[n_same] == ids[n_same]:
            n_same += 1
        self._cache.truncate(torch.tensor([n_same], device=device))
        drafts, distributions, unread = [], [], list(ids[n_same:])
        with evaluating(self._model):
            for _ in range(n):
                features = self._model.features(torch.tensor([unread], device=device), context=self._cache)
                logits = self._model.head(features[:, -1])[:, : self._vocab_size]
                distributions.append(distribution(logits, config))
                unread = [_draw(distributions[-1][0], generator)]
                drafts += unread
        self._read = [*ids, *drafts[:-1]]
        return drafts, torch.cat(distributions)


def check_draft(model: Model, large: Model) -> ContextModel:
    """The model, if it can draft for the large one. Raises UserError if not, see `DraftModel`."""
    ours, theirs = model.config.vocab_size, large.config.vocab_size
    if ours != theirs:
        raise UserError(
            f"the draft model has a vocabulary of {ours} ids, and the model one of {theirs}: a draft model needs"
            " the same tokenizer"
        )
    if not isinstance(model, ContextModel):
        raise UserError(f"the draft model, a {type(model).__name__}, takes no context: its drafts would be slow")
    return model


def distribution(logits: Tensor, config: SamplingConfig) -> Tensor:
    """The distributions (n, V), on the CPU, from which `choose` draws for logits (n, V). Greedy: all on one token."""
    check_finite(logits)
    if config.temperature == 0.0:
        return F.one_hot(logits.argmax(dim=-1), logits.size(-1)).float().cpu()
    return next_token_probabilities(logits, config).cpu()


def accept(drafts: Sequence[int], theirs: Tensor | None, ours: Tensor, generator: torch.Generator | None) -> list[int]:
    """The drafts that are accepted, and one more id: in place of the first that is not, or after the last.

    `theirs` (n, V) are the distributions of the drafts, and `ours` (n + 1, V) those of the model. A draft x is accepted
    with the probability min(1, ours(x) / theirs(x)). In place of one that is not, an id is drawn from what `ours` has
    more than `theirs` (Leviathan et al. 2023, algorithm 1).
    """
    chosen: list[int] = []
    for place, id in enumerate(drafts):
        p = ours[place]
        q = F.one_hot(torch.tensor(id), len(p)).float() if theirs is None else theirs[place]
        if float(torch.rand((), generator=generator) * q[id]) < float(p[id]):
            chosen.append(id)
            continue
        rest = (p - q).clamp(min=0.0)
        return [*chosen, _draw(rest if float(rest.sum()) > 0.0 else p, generator)]
    return [*chosen, _draw(ours[len(drafts)], generator)]


def _draw(weights: Tensor, generator: torch.Generator | None) -> int:
    return int(torch.multinomial(weights, 1, generator=generator))


@torch.no_grad()
def generate_speculatively(
    model: Model,
    prompt: Sequence[int],
    config: SamplingConfig,
    drafter: Drafter,
    *,
    max_new_tokens: int,
    n_drafts: int = N_DRAFTS,
    vocab_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yields ids as `generate` does, with the same distribution, but several from one pass where drafts are accepted.

    The same seed gives another text than `generate` does, except with temperature 0: more numbers are drawn. Past the
    window of `block_size` tokens, and for a model that takes no context, it goes on as `generate`, without drafts.
    """
    ids, end, block_size = list(prompt), len(prompt) + max_new_tokens, model.config.block_size
    if isinstance(model, ContextModel) and ids:
        rolling = model.relative_positions
        cache, device = KVCache(block_size, rolling=rolling), next(model.parameters()).device
        with evaluating(model):
            while len(ids) < end and (len(ids) <= block_size or (rolling and cache.length > 0)):
                n = max(min(n_drafts, end - len(ids) - 1, block_size - len(ids)), 0)
                drafts, theirs = drafter.draft(ids, n, config, generator)
                unread = torch.tensor([[*ids[cache.length :], *drafts]], device=device)
                features = model.features(unread, context=cache)[0, -len(drafts) - 1 :]
                ours = distribution(model.head(features)[:, :vocab_size], config)
                chosen = accept(drafts, theirs, ours, generator)
                ids += chosen
                cache.truncate(torch.tensor([len(ids) - 1], device=device))
                yield from chosen
    yield from generate(model, ids, config, max_new_tokens=end - len(ids), vocab_size=vocab_size, generator=generator)
