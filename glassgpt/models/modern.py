"""A GPT of today, made for small models: what changed since GPT-2, and embeddings of whole n-grams.

Rotary positions (Su et al. 2021), RMSNorm (Zhang & Sennrich 2019), normalised queries and keys (Henry et al. 2020), a
gated MLP (SwiGLU, Shazeer 2020), no biases, an output head of its own, and residual projections that start at zero, so
that every block starts as the identity. Without n-grams it is Qwen3 (Yang et al. 2025) with as many key/value heads as
query heads.

The n-gram embeddings are what makes it learn fast. A position gets the embedding of its token, one of its last two
tokens, one of its last three, and so on up to `ngram`. There are far too many n-grams for a row for each. So every
length has a table of `ngram_rows` rows, an n-gram is hashed to one of them, and some n-grams share a row. After an
n-gram that it has seen, a model of one block knows at once what came next; GPT-2 must first learn how to look two
tokens back.

Shapes: B batch, T positions, C = n_embd, H = n_head, D = C / H, V = vocab_size, N = ngram.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.models.attention import Attention
from glassgpt.models.context import Context
from glassgpt.models.model import ContextModel
from glassgpt.models.rotary import Turn, frequencies, rotate, rotation
from glassgpt.models.sizes import MOST, check_sizes

ROTARY_BASE = 10_000.0  # the slowest pair of dimensions turns by 1 radian in about so many positions
NORM_EPS = 1e-6
HASH_PRIME, HASH_FACTOR = 2**31 - 1, 1_000_003  # a hash is a polynomial of the ids, modulo a prime (Karp & Rabin 1987)


@dataclass(frozen=True)
class ModernConfig:
    """The sizes of a modern GPT. Raises UserError for invalid sizes."""

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    ngram: int = 4  # the longest n-gram with an embedding; 1: tokens alone
    ngram_rows: int = 16384  # rows of the table of each length of n-grams
    ngram_dropout: float = 0.0  # probability of leaving an n-gram's embedding out in training; 0: never

    def __post_init__(self) -> None:
        check_sizes(self)
        if not 1 <= self.ngram <= 16:
            raise UserError(f"model.ngram = {self.ngram} is out of range: it must be from 1 (none) to 16")
        if not 2 <= self.ngram_rows <= MOST["vocab_size"]:
            raise UserError(
                f"model.ngram_rows = {self.ngram_rows} is out of range: at least 2, and at most {MOST['vocab_size']:,}"
            )
        if not 0.0 <= self.ngram_dropout < 1.0:
            raise UserError(
                f"model.ngram_dropout = {self.ngram_dropout} is out of range: it must be at least 0 and below 1"
            )
        if self.n_embd // self.n_head % 2:
            raise UserError(
                f"model.n_embd = {self.n_embd} gives {self.n_head} heads of {self.n_embd // self.n_head} dimensions:"
                " rotary positions turn pairs of them, so a head needs an even number"
            )


def hidden_size(n_embd: int) -> int:
    """Hidden units of the gated MLP: 8/3 of C, a multiple of 8. Its three matrices are as large as GPT-2's two."""
    return 8 * round(n_embd / 3)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention, with normalised queries and keys that are turned by their positions.

    The score of a query and a key depends on their distance alone. Their norms are fixed, so no score explodes.
    """

    def __init__(self, config: ModernConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.norm_q = nn.RMSNorm(config.n_embd // config.n_head, eps=NORM_EPS)
        self.norm_k = nn.RMSNorm(config.n_embd // config.n_head, eps=NORM_EPS)
        self.inner = Attention(config.dropout)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Context | None = None, turn: Turn | None = None) -> Tensor:
        """`turn` is the rotation of the positions; by default that of positions 0 to T - 1."""
        B, T, C = x.shape
        if turn is None:
            turn = rotation(torch.arange(T, device=x.device), frequencies(C // self.n_head, ROTARY_BASE, x.device))
        # (B, T, 3C) -> three of (B, H, T, D)
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=-1))
        q, k = rotate(self.norm_q(q), turn), rotate(self.norm_k(k), turn)
        mask = None
        if context is not None:
            k, v, mask = context.append(self.layer, k, v)
        out = self.inner(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # concatenate the heads
        return self.dropout(self.proj(out))


class MLP(nn.Module):
    """A gated MLP: each hidden unit is multiplied by a gate of its own, applied to each position separately."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.n_embd, hidden_size(config.n_embd), bias=False)
        self.up = nn.Linear(config.n_embd, hidden_size(config.n_embd), bias=False)
        self.down = nn.Linear(hidden_size(config.n_embd), config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(F.silu(self.gate(x)) * self.up(x)))


class Block(nn.Module):
    """Attention moves information between positions, the MLP processes each one; both add to the residual stream."""

    def __init__(self, config: ModernConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.n_embd, eps=NORM_EPS)
        self.attn = CausalSelfAttention(config, layer)
        self.norm2 = nn.RMSNorm(config.n_embd, eps=NORM_EPS)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, context: Context | None = None, turn: Turn | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), context, turn)
        return x + self.mlp(self.norm2(x))


class Modern(ContextModel):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`."""

    config: ModernConfig
    relative_positions = True

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        # Row 0 is for positions near the start of a text, where there is no n-gram of this length. It stays zero.
        self.ngram_embeddings = nn.ModuleList(
            nn.Embedding(config.ngram_rows, config.n_embd, padding_idx=0) for _ in range(2, config.ngram + 1)
        )
        self.ngram_dropout = nn.Dropout(config.ngram_dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = nn.RMSNorm(config.n_embd, eps=NORM_EPS)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Zeros where something is added or read out, so that the first logits are 0; normal for all other matrices.

        Their std is 0.5 / √(columns), so that a normalised input gives outputs of about 0.5.
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("attn.proj.weight", "mlp.down.weight", "head.weight")) or "ngram" in name:
                nn.init.zeros_(parameter)
            elif name == "token_embedding.weight":
                nn.init.normal_(parameter, std=0.02)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.5 * parameter.size(1) ** -0.5)

    def embed(self, tokens: Tensor, positions: Tensor, context: Context | None) -> Tensor:
        """The sum of the embeddings of each token, and of the n-grams that end at it: (B, T, C)."""
        T = tokens.size(1)
        x = self.token_embedding(tokens)
        before = self.config.ngram - 1
        if before == 0:
            return x
        seen = F.pad(tokens, (before, 0)) if context is None else context.preceding(tokens, before)  # (B, N - 1 + T)
        hashed = tokens
        for distance, table in enumerate(self.ngram_embeddings, 1):
            earlier = seen[:, before - distance : before - distance + T]
            hashed = (hashed * HASH_FACTOR + earlier + distance) % HASH_PRIME
            row = 1 + hashed % (self.config.ngram_rows - 1)
            added = table(row.masked_fill(positions < distance, 0))
            if self.training and self.ngram_dropout.p > 0:
                # A whole n-gram at a time, so that the blocks learn to do without: tables learn a short text by heart.
                added = added * self.ngram_dropout(added.new_ones(added.shape[:2])).unsqueeze(-1)
            x = x + added
        return x

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to the final residual stream, normalised: (B, T, C)."""
        T = tokens.size(1)
        positions = torch.arange(T, device=tokens.device) if context is None else context.positions(T, tokens.device)
        x = self.dropout(self.embed(tokens, positions, context))
        head_size = self.config.n_embd // self.config.n_head
        turn = rotation(positions, frequencies(head_size, ROTARY_BASE, tokens.device))
        for block in self.blocks:
            x = block(x, context, turn)
        if context is not None:
            context.advance(T)
        return self.norm(x)

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))
