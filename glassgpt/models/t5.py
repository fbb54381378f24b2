"""T5 (Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer").

An encoder-decoder whose blocks normalise their input with RMSNorm, and have no biases. It has no positions in the
input: the score of a query and a key gets a learned number that depends on their distance and the head (section 2.1).
All blocks of a stack share these numbers. Near distances have one each, far ones share one with others, and those from
`max_distance` on are all the same, so a text of any length can be read. Scores are not divided by √D: the
initialisation of the queries is so much smaller instead.

Version 1.0 is that of the paper: a ReLU MLP, and a head that is the token embedding. Version 1.1
(released_checkpoints.md of the paper's code) has a gated MLP and a head of its own: `gated=True, tied=False`.

Shapes: B batch, S source positions, T target positions, C = n_embd, H = n_head, D = head_size, F = n_hidden,
V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.errors import UserError, shown
from glassgpt.models.attention import Attention
from glassgpt.models.context import KVCache
from glassgpt.models.gelu import gelu_tanh
from glassgpt.models.model import EncoderDecoderModel, TiedHead
from glassgpt.models.sizes import MOST, check_above, check_sizes


@dataclass(frozen=True)
class T5Config:
    """The sizes of a T5; the defaults are those of T5-small 1.0. Raises UserError for invalid sizes."""

    vocab_size: int = 32128
    block_size: int = 512  # positions in training, of the source and of the target; the model itself has no limit
    n_layer: int = 6  # blocks of the encoder
    n_head: int = 8
    n_embd: int = 512
    n_decoder_layer: int | None = None  # blocks of the decoder; None: as many as of the encoder
    head_size: int | None = 64  # None: n_embd / n_head
    n_hidden: int | None = 2048  # hidden units of the MLP; None: 4 times n_embd
    dropout: float = 0.0
    gated: bool = False  # whether the MLP is a gated one with tanh GELU, and not one with ReLU
    tied: bool = True  # whether the head is the token embedding, with its input divided by √n_embd
    norm_eps: float = 1e-6  # added to a variance or a mean square, so that no norm divides by zero
    n_bucket: int = 32  # numbers per head for distances, half of them for near ones
    max_distance: int = 128  # all distances from here on are the same

    def __post_init__(self) -> None:
        check_sizes(self, whole_heads=self.head_size is None)
        for field, most in (("n_decoder_layer", "n_layer"), ("head_size", "n_embd"), ("n_hidden", "n_embd")):
            value = getattr(self, field)
            if value is not None and not 1 <= value <= MOST[most]:
                raise UserError(f"model.{field} = {shown(value)} is out of range: at least 1, at most {MOST[most]:,}")
        far, farthest = self.max_distance, MOST["block_size"]
        if self.n_bucket < 4 or self.n_bucket % 2 or not self.n_bucket // 2 < far <= farthest:
            raise UserError(
                f"model.n_bucket = {shown(self.n_bucket)} and model.max_distance = {shown(far)} do not fit:"
                f" n_bucket must be even and at least 4, and max_distance above half of it and at most {farthest:,}"
            )
        check_above(self, norm_eps=0)

    @property
    def decoder_layers(self) -> int:
        """The blocks of the decoder."""
        return self.n_decoder_layer or self.n_layer

    @property
    def head_dim(self) -> int:
        """D, the dimensions of a head."""
        return self.head_size or self.n_embd // self.n_head

    @property
    def hidden(self) -> int:
        """F, the hidden units of the MLP."""
        return self.n_hidden or 4 * self.n_embd


# With the number of parameters of the released weights.
T5_SIZES = {
    "t5-small": T5Config(),  # 60,506,624
    "t5-v1_1-small": T5Config(n_layer=8, n_head=6, n_hidden=1024, gated=True, tied=False),  # 76,961,152
}


def buckets(offset: Tensor, n_bucket: int, max_distance: int, *, both_sides: bool) -> Tensor:
    """The bucket of each offset, key position minus query position: integers below `n_bucket`, of the same shape.

    With `both_sides`, keys after the query have the second half of the buckets. Otherwise there are none: their bucket
    is that of the distance 0. Half of the buckets of a side are for one distance each. The others are for ranges that
    grow logarithmically up to `max_distance`, and the last one is also for all that is farther.
    """
    first = torch.zeros_like(offset)
    if both_sides:
        n_bucket //= 2
        first = n_bucket * (offset > 0)
    distance = offset.abs() if both_sides else (-offset).clamp(min=0)
    near = n_bucket // 2
    # In float32 and in this order: where the quotient is nearly whole, released weights were trained with its rounding.
    share = torch.log(distance.clamp(min=1).float() / near) / math.log(max_distance / near)
    far = near + (share * (n_bucket - near)).long()
    return first + torch.where(distance < near, distance, far.clamp(max=n_bucket - 1))


class DistanceBias(nn.Module):
    """What a score gets for the distance of its query and its key: one number per bucket and head."""

    def __init__(self, config: T5Config, *, both_sides: bool) -> None:
        super().__init__()
        self.n_bucket, self.max_distance, self.both_sides = config.n_bucket, config.max_distance, both_sides
        self.table = nn.Embedding(config.n_bucket, config.n_head)

    def forward(self, queries: Tensor, n_keys: int) -> Tensor:
        """For queries at positions (T,) or (B, T), and keys at 0 … n_keys - 1: (1 or B, H, T, n_keys)."""
        keys = torch.arange(n_keys, device=queries.device)
        offset = keys - queries.unsqueeze(-1)  # (T, n_keys) or (B, T, n_keys)
        bias: Tensor = self.table(buckets(offset, self.n_bucket, self.max_distance, both_sides=self.both_sides))
        return (bias if bias.dim() == 4 else bias.unsqueeze(0)).permute(0, 3, 1, 2)


class SelfAttention(nn.Module):
    """Multi-head attention within a text; in the decoder, to a position itself and those before it."""

    def __init__(self, config: T5Config, layer: int, *, causal: bool) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        width = config.n_head * config.head_dim
        self.q = nn.Linear(config.n_embd, width, bias=False)
        self.k = nn.Linear(config.n_embd, width, bias=False)
        self.v = nn.Linear(config.n_embd, width, bias=False)
        self.inner = Attention(config.dropout, causal=causal, scale=1.0)
        self.proj = nn.Linear(width, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor | None = None, context: KVCache | None = None) -> Tensor:
        B, T, _ = x.shape
        # (B, T, H·D) to (B, H, T, D)
        q, k, v = (layer(x).view(B, T, -1, self.head_dim).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if context is not None:
            k, v, mask = context.append(self.layer, k, v)
        out = self.inner(q, k, v, mask, bias)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, -1)  # concatenate the heads
        return self.dropout(self.proj(out))


class CrossAttention(nn.Module):
    """Multi-head attention from the target to all positions of the memory. It has no bias for distances."""

    def __init__(self, config: T5Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        width = config.n_head * config.head_dim
        self.q = nn.Linear(config.n_embd, width, bias=False)
        self.k = nn.Linear(config.n_embd, width, bias=False)
        self.v = nn.Linear(config.n_embd, width, bias=False)
        self.inner = Attention(config.dropout, causal=False, scale=1.0)
        self.proj = nn.Linear(width, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, context: KVCache | None = None) -> Tensor:
        def of_memory() -> tuple[Tensor, Tensor]:
            B, S, _ = memory.shape
            k, v = (layer(memory).view(B, S, -1, self.head_dim).transpose(1, 2) for layer in (self.k, self.v))
            return k, v

        B, T, _ = x.shape
        q = self.q(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, H, T, D)
        k, v = of_memory() if context is None else context.once(self.layer, of_memory)  # (B, H, S, D)
        out = self.inner(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, -1)  # concatenate the heads
        return self.dropout(self.proj(out))


class MLP(nn.Module):
    """Version 1.0: two linear layers with ReLU between them."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.hidden_dropout = nn.Dropout(config.dropout)
        self.down = nn.Linear(config.hidden, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.hidden_dropout(F.relu(self.up(x)))))


class GatedMLP(nn.Module):
    """Version 1.1: each hidden unit is multiplied by a gate of its own, with tanh GELU (GEGLU, Shazeer 2020)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.gate = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.up = nn.Linear(config.n_embd, config.hidden, bias=False)
        self.hidden_dropout = nn.Dropout(config.dropout)
        self.down = nn.Linear(config.hidden, config.n_embd, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.hidden_dropout(gelu_tanh(self.gate(x)) * self.up(x))))


class EncoderBlock(nn.Module):
    """Attention moves information between the positions of the source, the MLP processes each one."""

    def __init__(self, config: T5Config, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.attn = SelfAttention(config, layer, causal=False)
        self.norm2 = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.mlp = GatedMLP(config) if config.gated else MLP(config)

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm1(x), bias, mask)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """As in the encoder; between the two, cross-attention moves information from the source to the target."""

    def __init__(self, config: T5Config, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.attn = SelfAttention(config, layer, causal=True)
        self.norm2 = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.cross = CrossAttention(config, layer)
        self.norm3 = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.mlp = GatedMLP(config) if config.gated else MLP(config)

    def forward(
        self, x: Tensor, bias: Tensor, memory: Tensor, mask: Tensor | None, context: KVCache | None = None
    ) -> Tensor:
        x = x + self.attn(self.norm1(x), bias, context=context)
        x = x + self.cross(self.norm2(x), memory, mask, context)
        return x + self.mlp(self.norm3(x))


class Encoder(nn.Module):
    """The blocks that read the source, with one bias for all of them, and a norm at the end."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.distances = DistanceBias(config, both_sides=True)
        self.blocks = nn.ModuleList(EncoderBlock(config, layer) for layer in range(config.n_layer))
        self.norm = nn.RMSNorm(config.n_embd, eps=config.norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, S, C), the embedded source, to the memory (B, S, C)."""
        S = x.size(1)
        bias = self.distances(torch.arange(S, device=x.device), S)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, bias, mask)
        return self.dropout(self.norm(x))


class Decoder(nn.Module):
    """The blocks that write the target, with one bias for all of them, and a norm at the end."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.distances = DistanceBias(config, both_sides=False)
        self.blocks = nn.ModuleList(DecoderBlock(config, layer) for layer in range(config.decoder_layers))
        self.norm = nn.RMSNorm(config.n_embd, eps=config.norm_eps)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, context: KVCache | None = None) -> Tensor:
        """x (B, T, C), the embedded target, and memory (B, S, C) to (B, T, C)."""
        T = x.size(1)
        if context is None:
            positions, n_keys = torch.arange(T, device=x.device), T
        else:
            positions, n_keys = context.positions(T, x.device), context.length + T
        bias = self.distances(positions, n_keys)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, bias, memory, mask, context)
        if context is not None:
            context.advance(T)
        return self.dropout(self.norm(x))


class T5(EncoderDecoderModel):
    """`source (B, S)` and `target (B, T)` to `logits (B, T, V)`."""

    config: T5Config

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        untied = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.head = TiedHead(self.token_embedding) if untied is None else untied
        self.init_weights()

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of the encoder, then those of the decoder."""
        return [*self.encoder.blocks, *self.decoder.blocks]

    def init_weights(self) -> None:
        """Normal with std 1/√(its inputs) for each matrix, and 1 for the token embedding, as in the paper's code.

        Queries have 1/√D of that, since scores are not divided by √D. The biases of distances have 1/√C.
        """
        for name, parameter in self.named_parameters():
            if name == "token_embedding.weight":
                nn.init.normal_(parameter, std=1.0)
            elif name.endswith("distances.table.weight"):
                nn.init.normal_(parameter, std=self.config.n_embd**-0.5)
            elif parameter.dim() == 2:
                inputs = parameter.size(1) * (self.config.head_dim if name.endswith(".q.weight") else 1)
                nn.init.normal_(parameter, std=inputs**-0.5)

    def encode(self, source: Tensor, *, visible: Tensor | None = None) -> Tensor:
        """source (B, S) to the memory (B, S, C). `visible` (B, S) is False where a row only has padding."""
        memory: Tensor = self.encoder(self.token_embedding(source), _mask(visible))
        return memory

    def features(
        self, target: Tensor, memory: Tensor, *, visible: Tensor | None = None, context: KVCache | None = None
    ) -> Tensor:
        """target (B, T) and memory (B, S, C) to the input of the head, (B, T, C). `visible` is that of the source."""
        x: Tensor = self.decoder(self.token_embedding(target), memory, _mask(visible), context)
        # Rows of the embedding are about √C long, those of a head of its own about 1.
        return x * self.config.n_embd**-0.5 if self.config.tied else x

    def forward(self, source: Tensor, target: Tensor, *, visible: Tensor | None = None) -> Tensor:
        return self.head(self.features(target, self.encode(source, visible=visible), visible=visible))


def _mask(visible: Tensor | None) -> Tensor | None:
    """`visible` (B, S) as a mask of keys, (B, 1, 1, S)."""
    return None if visible is None else visible[:, None, None, :]
