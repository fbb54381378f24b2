"""BERT (Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers"): an encoder that fills in gaps.

Compared with GPT-2: a position attends to those before and after it, so the model does not predict the next token but
tokens that were hidden (masked language modelling). The norms come after the additions, as in the original Transformer
(post-norm), and one after the embeddings takes the place of the final norm. Segments tell two texts in a row apart. The
head has a layer and a norm of its own before the matrix that is tied to the token embedding, and a bias after it.

The second task of the paper, whether one text follows another, needs a pooler and a classifier, which are not here.

Shapes: B batch, T positions, C = n_embd, H = n_head, D = C / H, F hidden units, V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.errors import UserError, shown
from glassgpt.models.attention import Attention
from glassgpt.models.model import EncoderModel, TiedHead
from glassgpt.models.sizes import MOST, check_above, check_sizes


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT; the defaults are those of BERT-base (uncased). Raises UserError for invalid sizes."""

    vocab_size: int = 30522
    block_size: int = 512
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    n_hidden: int | None = None  # hidden units of the MLP; None: 4 times n_embd
    n_segment: int = 2  # texts in a row that the model can tell apart
    dropout: float = 0.0
    norm_eps: float = 1e-12  # added to a variance or a mean square, so that no norm divides by zero

    def __post_init__(self) -> None:
        check_sizes(self)
        for field in ("n_hidden", "n_segment"):
            value = getattr(self, field)
            if value is not None and not 1 <= value <= MOST["n_embd"]:
                raise UserError(
                    f"model.{field} = {shown(value)} is out of range: at least 1, at most {MOST['n_embd']:,}"
                )
        check_above(self, norm_eps=0)

    @property
    def hidden(self) -> int:
        """F, the hidden units of the MLP."""
        return self.n_hidden or 4 * self.n_embd


# Section 3 of the paper. Parameter counts are those of `bert-base-uncased` and `bert-large-uncased` without the pooler
# and the classifier of the second task, with the tied matrix counted once.
BERT_SIZES = {
    "bert-base": BertConfig(n_layer=12, n_head=12, n_embd=768),  # 109,514,298 parameters
    "bert-large": BertConfig(n_layer=24, n_head=16, n_embd=1024),  # 335,174,458
}


class SelfAttention(nn.Module):
    """Multi-head self-attention without a causal mask: each position attends to all visible ones."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.q = nn.Linear(config.n_embd, config.n_embd)
        self.k = nn.Linear(config.n_embd, config.n_embd)
        self.v = nn.Linear(config.n_embd, config.n_embd)
        self.inner = Attention(config.dropout, causal=False)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        B, T, C = x.shape
        # (B, T, C) to (B, H, T, D)
        q, k, v = (layer(x).view(B, T, self.n_head, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        out = self.inner(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # concatenate the heads
        return self.dropout(self.proj(out))


class MLP(nn.Module):
    """Two linear layers with F hidden units and the exact GELU between them, applied to each position separately."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, config.hidden)
        self.down = nn.Linear(config.hidden, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(F.gelu(self.up(x))))


class Block(nn.Module):
    """Attention moves information between positions, the MLP processes each one; each sum is normalised."""

    post_norm = True  # the norms come after the additions, so the stream itself is what the sublayers read

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attn = SelfAttention(config)
        self.norm1 = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=config.norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.attn(x, mask))
        return self.norm2(x + self.mlp(x))


class MaskedHead(nn.Module):
    """Features to logits: a layer, GELU, a norm, and the token embedding (tied) with a bias for each token."""

    def __init__(self, config: BertConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.n_embd, config.n_embd)
        self.norm = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.tied = TiedHead(embedding)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, features: Tensor) -> Tensor:
        """(..., C) to logits (..., V)."""
        return F.linear(self.norm(F.gelu(self.dense(features))), self.tied.weight, self.bias)


class Bert(EncoderModel):
    """`tokens (B, T)` to `logits (B, T, V)` for the token at each position itself, T up to `block_size`."""

    config: BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.segment_embedding = nn.Embedding(config.n_segment, config.n_embd)
        self.norm_embedding = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.head = MaskedHead(config, self.token_embedding)
        self.init_weights()

    def init_weights(self) -> None:
        """Normal with std 0.02, cut off at two of them, and zero biases, as in the released code (`modeling.py`)."""
        most = math.erf(2 / math.sqrt(2))  # the probability of a number within two standard deviations
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.uniform_(parameter, -most, most)
                with torch.no_grad():
                    parameter.erfinv_().mul_(0.02 * math.sqrt(2))  # the inverse of the distribution function
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def features(self, tokens: Tensor, *, visible: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """tokens (B, T) to the last residual stream, (B, T, C).

        Each row of `visible` has a True. Positions where it is False get features, too, which mean nothing.
        """
        positions = torch.arange(tokens.size(1), device=tokens.device)
        segments = torch.zeros_like(tokens) if segments is None else segments
        x = self.token_embedding(tokens) + self.segment_embedding(segments) + self.position_embedding(positions)
        x = self.dropout(self.norm_embedding(x))
        mask = None if visible is None else visible[:, None, None, :]  # (B, 1, 1, T): the same for all queries
        for block in self.blocks:
            x = block(x, mask)
        return x

    def forward(self, tokens: Tensor, *, visible: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        return self.head(self.features(tokens, visible=visible, segments=segments))
