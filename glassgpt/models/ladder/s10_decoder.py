"""Section 10, the decoder: six wider layers, and dropout against overfitting.

The architecture is complete; this section makes it larger. A model that is large for its text can memorise it instead
of generalising. Dropout (Srivastava et al. 2014) sets a random fraction of the activations to 0 in every training step
and scales the others up to compensate, so that the model cannot rely on a single path. It acts on the embedding, the
attention pattern, and the output of each sublayer. In evaluation mode nothing is dropped.

GPT-2 (`glassgpt.models.gpt2`) adds no new idea: only size, a careful initialisation, and a head that reuses the
embedding's weights.

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
        self.inner = Attention(config.dropout)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        # (B, T, 3C) -> three of (B, H, T, D)
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=-1))
        out = self.inner(q, k, v)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # concatenate the heads
        return self.dropout(self.proj(out))


class MLP(nn.Module):
    """x (B, T, C) to (B, T, C), each position separately."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(F.gelu(self.up(x), approximate="tanh")))


class Block(nn.Module):
    """Attention moves information between positions, the MLP processes each; both add to the stream."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DecoderModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`: the Transformer decoder."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.05)

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to the final residual stream, normalised (B, T, C)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))
