"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"), exactly.

Learned positions, pre-norm blocks, tanh GELU, biases everywhere, the output head tied to the token embedding.
Compared with the last ladder model, mainly the size is new.

Shapes: B batch, T positions, C = n_embd, H = n_head, D = C / H, V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.models.attention import Attention
from glassgpt.models.context import Context
from glassgpt.models.gelu import gelu_tanh
from glassgpt.models.model import ContextModel
from glassgpt.models.sizes import check_padding, check_sizes, embedding_rows


@dataclass(frozen=True)
class GPT2Config:
    """The sizes of GPT-2; the defaults are those of the 124M model. Raises UserError for invalid sizes."""

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    padded_vocab_size: int | None = None  # rows of the embedding, if more than vocab_size

    def __post_init__(self) -> None:
        check_sizes(self)
        check_padding(self.vocab_size, self.padded_vocab_size)


# Table 2 of the paper. Parameter counts are those of the released weights, with the tied head counted once.
GPT2_SIZES = {
    "gpt2": GPT2Config(n_layer=12, n_head=12, n_embd=768),  # 124,439,808 parameters
    "gpt2-medium": GPT2Config(n_layer=24, n_head=16, n_embd=1024),  # 354,823,168
    "gpt2-large": GPT2Config(n_layer=36, n_head=20, n_embd=1280),  # 774,030,080
    "gpt2-xl": GPT2Config(n_layer=48, n_head=25, n_embd=1600),  # 1,557,611,200
}


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention: H heads in parallel; each position attends to itself and earlier positions."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.inner = Attention(config.dropout)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        B, T, C = x.shape
        # (B, T, 3C) -> three of (B, H, T, D)
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=-1))
        mask = None
        if context is not None:
            k, v, mask = context.append(self.layer, k, v)
        out = self.inner(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # concatenate the heads
        return self.dropout(self.proj(out))


class MLP(nn.Module):
    """Two linear layers with 4C hidden units and tanh GELU between them, applied to each position separately."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(gelu_tanh(self.up(x))))


class Block(nn.Module):
    """Attention moves information between positions, the MLP processes each one; both add to the residual stream."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.attn = CausalSelfAttention(config, layer)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), context)
        return x + self.mlp(self.norm2(x))


class GPT2(ContextModel):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`."""

    config: GPT2Config

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(embedding_rows(config), config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.init_weights()

    def init_weights(self) -> None:
        """Normal with std 0.02 and zero biases, as in the released code.

        The projections into the residual stream get std 0.02 / √(2·n_layer). The stream is a sum of 2·n_layer such
        projections, so its variance does not grow with depth (section 2.3 of the paper).
        """
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
        for block in self.blocks:
            x = block(x, context)
        if context is not None:
            context.advance(T)
        return self.norm(x)

    def head(self, features: Tensor) -> Tensor:
        """(B, T, C) to logits (B, T, V), with the (tied) token embedding weights, without the padding rows."""
        return F.linear(features, self.token_embedding.weight)[..., : self.config.vocab_size]

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))
