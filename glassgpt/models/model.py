"""The interface that every architecture offers to the rest of the package, and evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from glassgpt.models.context import Context
from glassgpt.models.sizes import ModelConfig


class Model(nn.Module):
    """The interface of a model: `forward(tokens)` is `head(features(tokens))`, logits (B, T, V).

    It has no behaviour of its own: each architecture implements all of it in one file. The rest of the package uses
    what is declared here and, if a model has them, a few submodules by name:

    - `token_embedding`, an `nn.Embedding`: also the output head where `head` is a method (costs/memory.py);
    - `position_embedding`, an `nn.Embedding`: a lookup, no matrix product (costs/flops.py);
    - `norm…`, `attn` and `mlp`, at any depth: the parts in memory tables (costs/memory.py);
    - `norm`: the norm between the last block and the head, if there is one (inspection/lens.py);
    - `blocks.N.attn.inner`, an `Attention`, with `blocks.N.attn.proj` after it, and `blocks.N.mlp.down`: their
      activations can be captured (inspection/taps.py).
    """

    config: ModelConfig
    blocks: nn.ModuleList  # may be empty; sharding and activation checkpointing work per block
    head: Callable[[Tensor], Tensor]  # (..., C) to logits (..., V): a module, or a method that reuses the embedding

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to the input of the head, (B, T, C)."""
        raise NotImplementedError


class ContextModel(Model):
    """A model whose passes also take a context: `forward(tokens, context=…)` is `head(features(tokens, context=…))`.

    A KV cache makes generation fast, and a document mask allows several documents in a row. Without a context, a model
    is generated from by passing the whole text through it for each token.
    """

    # Whether a score depends on the distance of two positions alone, so that a KV cache may roll past block_size.
    relative_positions = False

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to the input of the head, (B, T, C)."""
        raise NotImplementedError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Sets the model to evaluation mode (no dropout) and restores the mode of every module afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
