"""The interface that every architecture offers to the rest of the package, and evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.models.context import Context, KVCache
from glassgpt.models.sizes import ModelConfig


class Model(nn.Module):
    """The interface of a model: `forward(tokens)` is `head(features(tokens))`, logits (B, T, V).

    It has no behaviour of its own: each architecture implements all of it in one file. The rest of the package uses
    what is declared here and, if a model has them, a few submodules by name:

    - `token_embedding`, an `nn.Embedding`: also the output head where `is_tied`;
    - `position_embedding`, an `nn.Embedding`: a lookup, no matrix product (costs/flops.py);
    - `norm…`, `attn` and `mlp`, at any depth: the parts in memory tables (costs/memory.py);
    - `norm`: the norm between the last block and the head, if there is one (inspection/lens.py);
    - `blocks.N.attn.inner`, an `Attention`, with `blocks.N.attn.proj` after it, and `blocks.N.mlp.down`: their
      activations can be captured (inspection/taps.py);
    - `blocks.N.attn.band`: how many positions a query attends to, its own included, or None for all
      (inspection/sight.py); `blocks.N.attn.sinks` (H,): the scores of the heads' sinks;
    - `blocks.N.mlp.inner`, whose `hook` gets the `scores`, `experts` and `weights` of each token, as in gpt_oss.py
      (training/balance.py, inspection/experts.py);
    - `experts`, at any depth: of whose `config.n_expert` equal parts `config.n_active` serve a token (costs/flops.py).
    """

    config: ModelConfig
    blocks: nn.ModuleList  # may be empty; sharding and activation checkpointing work per block
    head: Callable[[Tensor], Tensor]  # (..., C) to logits (..., V): a module, or a method that uses the embedding

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


class EncoderModel(Model):
    """A model whose positions all see each other, before and after: `forward(tokens, visible=…)`, logits (B, T, V).

    It does not predict what comes next. Its loss picks positions whose token was hidden (masked language modelling).
    `visible` (B, T) is False where a row only has padding, which no position attends to. `segments` (B, T) says which
    of two texts a token belongs to, 0 or 1; by default all belong to the first.
    """

    def features(self, tokens: Tensor, *, visible: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """tokens (B, T) to the input of the head, (B, T, C)."""
        raise NotImplementedError


class EncoderDecoderModel(nn.Module):
    """A model that reads a source and writes a target: `forward(source, target)`, logits (B, T, V).

    It is `head(features(target, memory))` with `memory = encode(source)`. The encoder reads the source (B, S), in which
    all positions see each other, once. The decoder predicts each next token of the target (B, T) from those before it,
    and attends to the memory in every block (cross-attention).

    `encoder.blocks.N.attn.inner`, `decoder.blocks.N.attn.inner` and `decoder.blocks.N.cross.inner` are each an
    `Attention`: their activations can be captured (inspection/taps.py).
    """

    config: ModelConfig
    head: Callable[[Tensor], Tensor]

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of the encoder, then those of the decoder."""
        raise NotImplementedError

    def encode(self, source: Tensor, *, visible: Tensor | None = None) -> Tensor:
        """source (B, S) to the memory (B, S, C). `visible` (B, S) is False where a row only has padding."""
        raise NotImplementedError

    def features(
        self, target: Tensor, memory: Tensor, *, visible: Tensor | None = None, context: KVCache | None = None
    ) -> Tensor:
        """target (B, T) and memory (B, S, C) to the input of the head, (B, T, C). `visible` is that of the source."""
        raise NotImplementedError


class TiedHead(nn.Module):
    """An output head whose matrix is the token embedding (weight tying, Press & Wolf 2017), so it has no weights."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        vars(self)["embedding"] = embedding  # not as a submodule: the model has it under its own name

    @property
    def weight(self) -> Tensor:
        """(V, C), the parameter of the embedding."""
        weight: Tensor = vars(self)["embedding"].weight
        return weight

    def forward(self, features: Tensor) -> Tensor:
        """(..., C) to logits (..., V)."""
        return F.linear(features, self.weight)


def is_tied(model: nn.Module) -> bool:
    """Whether the head uses the matrix of the token embedding: as a method of the model, or by a `TiedHead` in it."""
    if not isinstance(model.head, nn.Module):
        return hasattr(model, "token_embedding")
    return any(isinstance(module, TiedHead) for module in model.head.modules())


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
