"""Estimates the number of FLOPs per token."""

from __future__ import annotations

from torch import nn

from glassgpt.models import Model
from glassgpt.models.attention import Attention

LOOKUPS = ("position_embedding", "segment_embedding", "ngram_embeddings")


def estimate_flops_per_token(model: Model) -> float:
    """FLOPs of one token's forward and backward pass: 6·N + 12·L·C·T (Chowdhery et al. 2022, PaLM, appendix B).

    N counts every parameter except the embeddings of positions, segments and n-grams, which are only lookups. A token
    embedding that is not tied to the head is a lookup too, but it is counted, as in the sections of the ladder. L is
    the number of `Attention` modules; a section that implements attention itself has none.
    """
    lookups = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.startswith(LOOKUPS)
    )
    n_attention = sum(isinstance(module, Attention) for module in model.modules())
    n_matmul = count_parameters(model) - lookups
    return 6.0 * n_matmul + 12.0 * n_attention * model.config.n_embd * model.config.block_size


def count_parameters(model: nn.Module) -> int:
    """The number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())
