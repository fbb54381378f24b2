"""Writes targets with an encoder-decoder: ids of sources to ids of their translations.

Shapes: B rows, S source positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.generation.sampling import SamplingConfig, choose
from glassgpt.models.context import KVCache
from glassgpt.models.model import EncoderDecoderModel, evaluating

GREEDY = SamplingConfig(temperature=0.0)


def write_target(
    model: EncoderDecoderModel,
    sources: Tensor,
    start_id: int,
    stop_id: int | None,
    max_new_tokens: int,
    visible: Tensor | None = None,
    *,
    vocab_size: int | None = None,
    config: SamplingConfig = GREEDY,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """The ids that the model writes for each row of `sources` (B, S), greedily or as `config` says.

    A target starts with `start_id` and ends before `stop_id`, or after `max_new_tokens`; neither id is returned.
    `visible` (B, S) is False where a row only has padding. The encoder reads the sources once, and each step passes one
    token per row through the decoder, with a KV cache. Ids of `vocab_size` and above are never written: a model may
    have more rows than its tokenizer has ids. Raises UserError for what is longer than the model's block_size, and for
    a source without a visible position.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens = {max_new_tokens} is out of range: it must be at least 1")
    for name, length in (("a source of", sources.size(1)), ("a target of up to", max_new_tokens)):
        if length > model.config.block_size:
            raise UserError(f"{name} {length} tokens is too long: model.block_size is {model.config.block_size}")
    if sources.size(1) == 0 or (visible is not None and not bool(visible.any(dim=1).all())):
        raise UserError("a source has no tokens: there is nothing for the decoder to attend to")
    written: list[Tensor] = []
    with evaluating(model), torch.inference_mode():
        memory = model.encode(sources, visible=visible)
        cache = KVCache(model.config.block_size)
        tokens = sources.new_full((sources.size(0), 1), start_id)
        going = torch.ones_like(tokens, dtype=torch.bool)
        while len(written) < max_new_tokens and bool(going.any()):
            features = model.features(tokens, memory, visible=visible, context=cache)
            tokens = choose(model.head(features[:, -1])[:, :vocab_size], config, generator)  # (B, 1)
            written.append(tokens)
            if stop_id is not None:
                going &= tokens != stop_id  # a row that has ended goes on with the others, and is cut below
    rows: list[list[int]] = torch.cat(written, dim=1).tolist()
    return [row[: row.index(stop_id)] if stop_id in row else row for row in rows]
