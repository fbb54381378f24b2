"""What every architecture offers to the rest of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from glassgpt.models.context import Context
from glassgpt.models.sizes import ModelConfig


class Model(nn.Module):
    """The interface of a model: `forward(tokens, context=…)` is `head(features(tokens, context=…))`, logits (B, T, V).

    It has no behaviour of its own: each architecture writes all of it in its one file. Beyond what is declared here,
    the rest of the package knows a few submodules by name, where a model has them:

    - `token_embedding`, an `nn.Embedding`: also the output head where `head` is a method (costs/memory.py);
    - `position_embedding`, an `nn.Embedding`: looked up, never multiplied (costs/flops.py);
    - `norm…`, `attn` and `mlp`, at any depth: the parts in memory tables (costs/memory.py);
    - `blocks.N.attn.inner`, an `Attention`: what is captured inside a block (inspection/capture.py).
    """

    config: ModelConfig
    blocks: nn.ModuleList  # empty where a model has no depth; sharding and activation checkpointing work on each
    head: Callable[[Tensor], Tensor]  # (..., C) to logits (..., V): a module, or a method that reuses the embedding

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to what the head reads logits from, (B, T, C)."""
        raise NotImplementedError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts the model into evaluation mode (no dropout), and gives every module its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
