"""Qwen3 (Yang et al. 2025): a Llama whose queries and keys are normalised before they are turned.

Compared with llama.py: an RMSNorm over the dimensions of each head, with one gain for all heads, keeps scores from
growing in training (Henry et al. 2020); the size of a head is free, so all heads together may be wider than the
residual stream; and positions turn with a base of a million, for longer texts. Its small models tie the head.

Shapes: B batch, T positions, C = n_embd, H = n_head, G = n_kv_head, D = head_size, F = n_hidden, V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.models.attention import Attention
from glassgpt.models.context import Context
from glassgpt.models.model import ContextModel, TiedHead
from glassgpt.models.rotary import Turn, frequencies, rotate, rotation
from glassgpt.models.sizes import check_above, check_groups, check_sizes


@dataclass(frozen=True)
class Qwen3Config:
    """The sizes of a Qwen3; the defaults are those of Qwen3-0.6B, but for its shared heads. Raises UserError."""

    vocab_size: int = 151936
    block_size: int = 40960
    n_layer: int = 28
    n_head: int = 16
    n_embd: int = 1024
    n_kv_head: int | None = None  # key/value heads; None: as many as query heads
    head_size: int | None = None  # dimensions of a head; None: n_embd / n_head
    n_hidden: int | None = None  # hidden units of the MLP; None: 3 times n_embd
    dropout: float = 0.0
    tied: bool = True  # whether the head is the token embedding
    norm_eps: float = 1e-6  # added to the mean square, so that no norm divides by zero
    rope_base: float = 1_000_000.0  # the slowest pair of dimensions turns by 1 radian in about so many positions

    def __post_init__(self) -> None:
        check_sizes(self, whole_heads=False)
        check_groups(self)
        check_above(self, rope_base=1, norm_eps=0)

    @property
    def kv_heads(self) -> int:
        """G, the number of key/value heads."""
        return self.n_kv_head or self.n_head

    @property
    def head_dim(self) -> int:
        """D, the dimensions of a head."""
        return self.head_size or self.n_embd // self.n_head

    @property
    def hidden(self) -> int:
        """F, the hidden units of the MLP."""
        return self.n_hidden or 3 * self.n_embd


def turn_of(positions: Tensor, config: Qwen3Config) -> Turn:
    """The rotation of the heads' dimensions at `positions`, (T,) or (B, T)."""
    return rotation(positions, frequencies(config.head_dim, config.rope_base, positions.device))


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention with normalised queries and keys; H / G query heads share a key/value head."""

    def __init__(self, config: Qwen3Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.config = config
        self.head_dim = config.head_dim
        self.q = nn.Linear(config.n_embd, config.n_head * config.head_dim, bias=False)
        self.k = nn.Linear(config.n_embd, config.kv_heads * config.head_dim, bias=False)
        self.v = nn.Linear(config.n_embd, config.kv_heads * config.head_dim, bias=False)
        self.norm_q = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
        self.norm_k = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
        self.inner = Attention(config.dropout)
        self.proj = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Context | None = None, turn: Turn | None = None) -> Tensor:
        """`turn` is the rotation of the positions; by default that of positions 0 to T - 1."""
        B, T, _ = x.shape
        turn = turn_of(torch.arange(T, device=x.device), self.config) if turn is None else turn
        # (B, T, H·D) to (B, H, T, D), and (B, T, G·D) to (B, G, T, D)
        q, k, v = (layer(x).view(B, T, -1, self.head_dim).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = rotate(self.norm_q(q), turn), rotate(self.norm_k(k), turn)
        mask = None
        if context is not None:
            k, v, mask = context.append(self.layer, k, v)
        out = self.inner(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, -1)  # concatenate the heads
        return self.dropout(self.proj(out))


class MLP(nn.Module):
    """A gated MLP (SwiGLU, Shazeer 2020): each hidden unit is multiplied by a gate of its own."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.gate = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.up = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(F.silu(self.gate(x)) * self.up(x)))


class Block(nn.Module):
    """Attention moves information between positions, the MLP processes each one; both add to the residual stream."""

    def __init__(self, config: Qwen3Config, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.attn = CausalSelfAttention(config, layer)
        self.norm2 = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, context: Context | None = None, turn: Turn | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), context, turn)
        return x + self.mlp(self.norm2(x))


class Qwen3(ContextModel):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`."""

    config: Qwen3Config
    relative_positions = True

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        untied = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.head = TiedHead(self.token_embedding) if untied is None else untied
        self.init_weights()

    def init_weights(self) -> None:
        """Normal with std 0.02, and 0.02 / √(2·n_layer) for the projections into the residual stream, as GPT-2.

        The report says nothing about the initialisation.
        """
        residual_std = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_residual = name.endswith(("attn.proj.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=residual_std if into_residual else 0.02)

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to the final residual stream, normalised: (B, T, C)."""
        T = tokens.size(1)
        positions = torch.arange(T, device=tokens.device) if context is None else context.positions(T, tokens.device)
        turn = turn_of(positions, self.config)
        x = self.dropout(self.token_embedding(tokens))
        for block in self.blocks:
            x = block(x, context, turn)
        if context is not None:
            context.advance(T)
        return self.norm(x)

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))
