"""The Transformer (Vaswani et al. 2017, "Attention Is All You Need"): an encoder reads, a decoder writes.

The encoder reads a source, such as a German sentence, and makes of it the memory: a vector for each source position.
The decoder writes the target, its translation, token by token. GPT-2 is this decoder alone. Compared with gpt2.py:

- each block of the decoder has a second attention, to the memory (cross-attention);
- the blocks of the encoder see all positions, later ones too, since the whole source is known;
- norms stand after the sums (post-norm), so there is none between the last block and the head;
- positions are sines and cosines, which are computed, not learned;
- the MLP has ReLU in the paper, and Swish in the models of the OPUS-MT project (Tiedemann & Thottingal 2020).

Source and target share one token embedding, which is also the head (section 3.4 of the paper). The head has a bias, as
in Marian (Junczys-Dowmunt et al. 2018), the program that trained the models of OPUS-MT.

Shapes: B batch, S source positions, T target positions, C = n_embd, H = n_head, D = C / H, F = n_hidden,
V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.errors import UserError, shown, unknown
from glassgpt.models.attention import Attention
from glassgpt.models.context import KVCache
from glassgpt.models.model import EncoderDecoderModel
from glassgpt.models.sizes import MOST, check_sizes

ACTIVATIONS = {"relu": F.relu, "swish": F.silu}  # Swish is x σ(x) (Ramachandran et al. 2017), PyTorch's SiLU
WAVELENGTHS = 10_000.0  # over 2π, of the slowest pair of dimensions (section 3.5)
NORM_EPS = 1e-5


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a Transformer; the defaults are those of the base model. Raises UserError for invalid sizes."""

    vocab_size: int = 37000  # of source and target together
    block_size: int = 512  # longest source, and longest target
    n_layer: int = 6  # blocks of the decoder
    n_head: int = 8
    n_embd: int = 512
    n_encoder_layer: int | None = None  # blocks of the encoder; None: as many as in the decoder
    n_hidden: int | None = None  # hidden units of the MLP; None: 4 times n_embd
    dropout: float = 0.0
    activation: Literal["relu", "swish"] = "relu"  # of the MLP: that of the paper, or that of OPUS-MT
    scaled: bool = True  # whether token embeddings are multiplied by √n_embd (section 3.4)

    def __post_init__(self) -> None:
        check_sizes(self)
        for field, most in (("n_encoder_layer", MOST["n_layer"]), ("n_hidden", MOST["n_embd"])):
            value = getattr(self, field)
            if value is not None and not 1 <= value <= most:
                raise UserError(f"model.{field} = {shown(value)} is out of range: at least 1, at most {most:,}")
        if self.n_embd % 2:
            raise UserError(f"model.n_embd = {self.n_embd} is odd, but half of the positions are sines, half cosines")
        if self.activation not in ACTIVATIONS:
            raise unknown("model.activation", self.activation, ACTIVATIONS)

    @property
    def encoder_layers(self) -> int:
        """The number of blocks of the encoder."""
        return self.n_encoder_layer or self.n_layer

    @property
    def hidden(self) -> int:
        """F, the hidden units of the MLP."""
        return self.n_hidden or 4 * self.n_embd


# Table 3 of the paper. It used a vocabulary of about 37,000 for English and German.
TRANSFORMER_SIZES = {
    "base": TransformerConfig(n_layer=6, n_head=8, n_embd=512),  # 63,119,496 parameters; the paper says 65 million
    "big": TransformerConfig(n_layer=6, n_head=16, n_embd=1024),  # 214,282,376; the paper says 213 million
}


def sinusoids(positions: Tensor, n_embd: int) -> Tensor:
    """The vectors of `positions`, (…) to (…, C): C / 2 sines, then the cosines of the same angles (section 3.5).

    The paper alternates sines and cosines; its code and Marian have all sines first. It is the same model: what reads
    the vectors learns which dimension is which. Angles grow to hundreds of radians, so they are computed in float64.
    """
    precise = torch.float32 if positions.device.type == "mps" else torch.float64  # MPS has no float64
    pairs = torch.arange(0, n_embd, 2, device=positions.device, dtype=precise)
    angles = positions[..., None].to(precise) * WAVELENGTHS ** (-pairs / n_embd)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class MultiHeadAttention(nn.Module):
    """H heads in parallel (section 3.2.2). Whose keys and values the queries meet is for the caller to say.

    Cross-attention is the same primitive as self-attention, `Attention`, with other keys and values: those of the
    memory instead of those of the positions that ask.
    """

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.q = nn.Linear(config.n_embd, config.n_embd)
        self.k = nn.Linear(config.n_embd, config.n_embd)
        self.v = nn.Linear(config.n_embd, config.n_embd)
        self.inner = Attention(causal=causal)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the positions x (B, S, C) offer to queries: k and v, each (B, H, S, D)."""
        return self._heads(self.k(x)), self._heads(self.v(x))

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the positions x (B, T, C) gather from k and v (B, H, S, D): (B, T, C)."""
        out = self.inner(self._heads(self.q(x)), k, v, mask)  # (B, H, T, D)
        return self.dropout(self.proj(out.transpose(1, 2).reshape(x.shape)))  # concatenate the heads

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, H, T, D)."""
        B, T, _ = x.shape
        return x.view(B, T, self.n_head, -1).transpose(1, 2)


class MLP(nn.Module):
    """Two linear layers with an activation between them, applied to each position separately (section 3.3)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.n_embd, config.hidden)
        self.down = nn.Linear(config.hidden, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.activation(self.up(x))))


class EncoderBlock(nn.Module):
    """Self-attention among all source positions, then the MLP; the sum with the input is normalised after each."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(config, causal=False)
        self.norm1 = nn.LayerNorm(config.n_embd, eps=NORM_EPS)
        self.mlp = MLP(config)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.attn(x, *self.attn.keys_and_values(x), mask))
        return self.norm2(x + self.mlp(x))


class DecoderBlock(nn.Module):
    """Causal self-attention among target positions, cross-attention to the memory, then the MLP.

    With a KV cache, the keys and values of earlier target positions are there already, and those of the memory are
    computed in the first pass only.
    """

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attn = MultiHeadAttention(config, causal=True)
        self.norm1 = nn.LayerNorm(config.n_embd, eps=NORM_EPS)
        self.cross = MultiHeadAttention(config, causal=False)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=NORM_EPS)
        self.mlp = MLP(config)
        self.norm3 = nn.LayerNorm(config.n_embd, eps=NORM_EPS)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, context: KVCache | None = None) -> Tensor:
        """x (B, T, C) and memory (B, S, C) to (B, T, C). `mask` (B, 1, 1, S) is that of the memory."""
        k, v = self.attn.keys_and_values(x)
        earlier = None
        if context is not None:
            k, v, earlier = context.append(self.layer, k, v)
        x = self.norm1(x + self.attn(x, k, v, earlier))
        if context is None:
            k, v = self.cross.keys_and_values(memory)
        else:
            k, v = context.once(self.layer, lambda: self.cross.keys_and_values(memory))
        x = self.norm2(x + self.cross(x, k, v, mask))
        return self.norm3(x + self.mlp(x))


class Encoder(nn.Module):
    """The blocks that read the source."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class Decoder(nn.Module):
    """The blocks that write the target."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DecoderBlock(config, layer) for layer in range(config.n_layer))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, context: KVCache | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, memory, mask, context)
        return x


class Transformer(EncoderDecoderModel):
    """`source (B, S)` and `target (B, T)` to `logits (B, T, V)`, S and T up to `block_size`.

    The logits at position t are for the token after it, so a target begins with a token that stands for its start.
    """

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.init_weights()

    def init_weights(self) -> None:
        """Matrices as Glorot & Bengio (2010) draw them, embeddings with std 1/(2√C), biases zero.

        The paper does not say. √C times such an embedding is nearly as large as the positions, and the tied head gives
        logits with a std of 1/2 for features that are normalised. With 1/√C, as in the paper's code, the model begins
        far above the loss of a uniform guess, since it prefers to repeat the last token, and it learns more slowly.
        """
        for name, parameter in self.named_parameters():
            if name == "token_embedding.weight":
                nn.init.normal_(parameter, std=0.5 * self.config.n_embd**-0.5)
            elif parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of the encoder, then those of the decoder."""
        return [*self.encoder.blocks, *self.decoder.blocks]

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens (B, T) at `positions` (T,) or (B, T) to the input of the first block, (B, T, C)."""
        x = self.token_embedding(tokens)
        if self.config.scaled:
            x = x * math.sqrt(self.config.n_embd)
        return self.dropout(x + sinusoids(positions, self.config.n_embd).to(x.dtype))

    def encode(self, source: Tensor, *, visible: Tensor | None = None) -> Tensor:
        """source (B, S) to the memory (B, S, C). `visible` (B, S) is False where a row only has padding."""
        positions = torch.arange(source.size(1), device=source.device)
        return self.encoder(self.embed(source, positions), padding_mask(visible))

    def features(
        self, target: Tensor, memory: Tensor, *, visible: Tensor | None = None, context: KVCache | None = None
    ) -> Tensor:
        """target (B, T) and memory (B, S, C) to the input of the head, (B, T, C). `visible` is that of the source.

        With a `context`, the target goes on where the last pass ended, and the memory is that of the first pass.
        """
        T = target.size(1)
        positions = torch.arange(T, device=target.device) if context is None else context.positions(T, target.device)
        x = self.decoder(self.embed(target, positions), memory, padding_mask(visible), context)
        if context is not None:
            context.advance(T)
        return x

    def head(self, features: Tensor) -> Tensor:
        """(B, T, C) to logits (B, T, V), with the (tied) token embedding."""
        return F.linear(features, self.token_embedding.weight, self.head_bias)

    def forward(self, source: Tensor, target: Tensor, *, visible: Tensor | None = None) -> Tensor:
        memory = self.encode(source, visible=visible)
        return self.head(self.features(target, memory, visible=visible))


def padding_mask(visible: Tensor | None) -> Tensor | None:
    """The mask of keys for `Attention`: `visible` (B, S) to (B, 1, 1, S), the same for all heads and queries."""
    return None if visible is None else visible[:, None, None, :].bool()
