"""Counts parameters, and estimates the number of FLOPs per token."""

from __future__ import annotations

from typing import Any

from torch import nn

from glassgpt.models import AnyModel
from glassgpt.models.attention import Attention

LOOKUPS = ("position_embedding", "segment_embedding", "ngram_embeddings")


def estimate_flops_per_token(model: AnyModel) -> float:
    """FLOPs of one token's forward and backward pass: 6·N + 12·L·C·T (Chowdhery et al. 2022, PaLM, appendix B).

    N counts every active parameter except the embeddings of positions, segments and n-grams: they are lookups. A token
    embedding that is not tied to the head is a lookup too, but it is counted, as in the sections of the ladder. L is
    the number of `Attention` modules; a section that implements attention itself has none. C is the width of all heads
    together, which some architectures choose apart from that of the stream. Of an encoder-decoder, it is one token of
    the target and one of a source that is as long.
    """
    lookups = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.startswith(LOOKUPS)
    )
    n_attention = sum(isinstance(module, Attention) for module in model.modules())
    n_matmul = count_active_parameters(model) - lookups
    head_size = getattr(model.config, "head_dim", None)
    width = model.config.n_embd if head_size is None else model.config.n_head * head_size
    return 6.0 * n_matmul + 12.0 * n_attention * width * model.config.block_size


def count_parameters(model: nn.Module) -> int:
    """The number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_active_parameters(model: AnyModel) -> int:
    """The number of parameters without those of experts that a token does not choose, `n_active` of `n_expert`.

    The whole token embedding counts, though a token looks up one row. OpenAI leaves it out: gpt-oss-20b has 4.2 billion
    active parameters here, and 3.6 billion without its embedding.
    """
    in_experts = sum(p.numel() for name, p in model.named_parameters() if "experts" in name.split("."))
    if not in_experts:
        return count_parameters(model)
    config: Any = model.config
    idle = in_experts // config.n_expert * (config.n_expert - config.n_active)
    return count_parameters(model) - idle
