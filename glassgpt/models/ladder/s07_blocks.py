"""Section 7, stacked blocks: listen and think, then listen to what the others thought.

One round of attention sees only the tokens themselves. A second block sees what the first made of them, so it can look
for "the end of a name" and not only for "a colon". Depth is what lets a model build one notion on another.

It does not come free: every block *replaces* its input, so what the first block knew reaches the head only if every
block after it passes it on, and the gradient must find its way back through all of them. A few blocks still train,
worse than one would hope; many do not. Section 8 mends it.

Shapes: B batch, T positions, C = n_embd, H = n_head, D = C / H size of a head, V = vocab_size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.models.attention import Attention
from glassgpt.models.context import Context
from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


class CausalSelfAttention(nn.Module):
    """x (B, T, C) to what each position hears, all heads together (B, T, C)."""

    def __init__(self, config: LadderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.inner = Attention()
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, context: Context | None) -> Tensor:
        B, T, C = x.shape
        # (B, T, 3C) -> three of (B, H, T, D)
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=-1))
        mask = None
        if context is not None:
            k, v, mask = context.append(self.layer, k, v)
        out = self.inner(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # the heads side by side again
        return self.proj(out)


class MLP(nn.Module):
    """x (B, T, C) to (B, T, C), each position on its own."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Attention moves information between positions, the MLP works on each."""

    def __init__(self, config: LadderConfig, layer: int) -> None:
        super().__init__()
        self.attn = CausalSelfAttention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, context: Context | None) -> Tensor:
        x = self.attn(x, context)
        return self.mlp(x)


class BlocksModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`, through `n_layer` blocks, one after the other."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.05)

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to the output of the last block (B, T, C)."""
        T = tokens.size(1)
        positions = torch.arange(T, device=tokens.device) if context is None else context.positions(T, tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x, context)
        if context is not None:
            context.advance(T)
        return x

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))
