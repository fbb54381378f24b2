"""Section 6, feed-forward: after attention, an MLP processes each position.

Attention only mixes values: apart from its pattern, everything in it is linear. The MLP adds a nonlinear computation
at each position: up to 4C channels, a nonlinearity (GELU, a smooth "keep what is positive"), and down to C again. It is
the same for all positions and moves nothing between them. From here on every model has these two steps: attention
communicates, the MLP computes.

Shapes: B batch, T positions, C = n_embd, H = n_head, D = C / H head size, V = vocab_size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.models.attention import Attention
from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention, (B, T, C) to (B, T, C)."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.inner = Attention()
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        # (B, T, 3C) -> three of (B, H, T, D)
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=-1))
        out = self.inner(q, k, v)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # concatenate the heads
        return self.proj(out)


class MLP(nn.Module):
    """x (B, T, C) to (B, T, C), each position separately."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Attention moves information between positions, the MLP processes each."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.attn = CausalSelfAttention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(x)
        return self.mlp(x)


class FeedForwardModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`, through attention and one MLP."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList([Block(config)])
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.05)

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to what the MLP made of what was heard (B, T, C)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))
