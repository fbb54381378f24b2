"""GPT-3 (Brown et al. 2020, "Language Models are Few-Shot Learners"): GPT-2 with banded attention in odd layers.

The layers alternate between dense attention and the locally banded pattern of the Sparse Transformer (Child et al.
2019), in which a position attends to itself and the `band_width` - 1 positions before it. The GPT-3 paper does not
state the band width; 128 is what Child et al. used for text. Everything else is GPT-2: learned positions, pre-norm
blocks, tanh GELU, biases, the head tied to the token embedding, smaller initial residual projections.

By default the band is a mask on the dense kernel, which saves no arithmetic. With `BlockMasks` as its context, a model
compiled for a GPU skips most of what the mask hides, like the block-sparse kernels that GPT-3 was trained with. The
eight published sizes are recipes, see `glassgpt recipes`.

Shapes: B batch, T queries, S keys, C = n_embd, H = n_head, D = C / H, V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.models.attention import Attention, window_mask
from glassgpt.models.context import Context
from glassgpt.models.gelu import gelu_tanh
from glassgpt.models.model import ContextModel
from glassgpt.models.sizes import check_padding, check_sizes, embedding_rows


@dataclass(frozen=True)
class GPT3Config:
    """The sizes of GPT-3; the defaults are those of the smallest. Raises UserError for invalid sizes."""

    vocab_size: int = 50257
    block_size: int = 2048
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    band_width: int = 128  # positions that a query in a banded layer attends to, including its own
    padded_vocab_size: int | None = None  # rows of the embedding, if more than vocab_size

    def __post_init__(self) -> None:
        check_sizes(self)
        check_padding(self.vocab_size, self.padded_vocab_size)
        if self.band_width < 1:
            raise UserError(f"model.band_width = {self.band_width} is out of range: it must be at least 1")


class SelfAttention(nn.Module):
    """Causal self-attention: over all positions so far, or in a banded layer over the last `band_width`."""

    def __init__(self, config: GPT3Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.band = config.band_width if layer % 2 else None  # the first layer is dense
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.inner = Attention(config.dropout)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Context | None = None, near: Tensor | None = None) -> Tensor:
        B, T, C = x.shape
        # (B, T, 3C) -> three of (B, H, T, D)
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=-1))
        if context is not None:
            k, v, mask = context.append(self.layer, k, v, window=self.band)
        elif self.band is None:
            mask = None
        else:
            mask = window_mask(T, T, self.band, x.device) if near is None else near
        out = self.inner(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # concatenate the heads
        return self.dropout(self.proj(out))


class MLP(nn.Module):
    """Two linear layers with 4C hidden units and tanh GELU between them, applied to each position separately."""

    def __init__(self, config: GPT3Config) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(gelu_tanh(self.up(x))))


class Block(nn.Module):
    """Attention moves information between positions, the MLP processes each one; both add to the residual stream."""

    def __init__(self, config: GPT3Config, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.attn = SelfAttention(config, layer)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, context: Context | None = None, near: Tensor | None = None) -> Tensor:
        """`near` is the mask of a band, if it is computed already."""
        x = x + self.attn(self.norm1(x), context, near)
        return x + self.mlp(self.norm2(x))


class GPT3(ContextModel):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`."""

    config: GPT3Config

    def __init__(self, config: GPT3Config) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(embedding_rows(config), config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.init_weights()

    def init_weights(self) -> None:
        """As GPT-2: normal with std 0.02, divided by √(2·n_layer) for the residual projections; zero biases."""
        residual_std = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_residual = name.endswith(("attn.proj.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=residual_std if into_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to the final residual stream, normalised: (B, T, C)."""
        T = tokens.size(1)
        positions = torch.arange(T, device=tokens.device) if context is None else context.positions(T, tokens.device)
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        # One mask for all banded layers. A context has its own.
        near = window_mask(T, T, self.config.band_width, x.device) if context is None else None
        for block in self.blocks:
            x = block(x, context, near)
        if context is not None:
            context.advance(T)
        return self.norm(x)

    def head(self, features: Tensor) -> Tensor:
        """(B, T, C) to logits (B, T, V), with the (tied) token embedding weights, without the padding rows."""
        return F.linear(features, self.token_embedding.weight)[..., : self.config.vocab_size]

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))
