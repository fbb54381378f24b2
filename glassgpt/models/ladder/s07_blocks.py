"""Section 7, stacked blocks: attention and MLP again, on the results of the block before.

The first block attends only to the tokens themselves. A second block attends to the results of the first, so it can
look for "the end of a name" and not only for "a colon". Depth lets a model build one feature on another.

Depth has a cost. Every block *replaces* its input, so what the first block computed reaches the head only if every
later block passes it on. Before training, attention mixes the positions, and each block mixes them again: after three
blocks little is left of the current token. Three blocks are then worse than one. Section 8 fixes this.

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


class BlocksModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`, through `n_layer` blocks, one after the other."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.05)

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to the output of the last block (B, T, C)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))
