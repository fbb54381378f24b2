"""GPT-oss (OpenAI 2025, "gpt-oss-120b & gpt-oss-20b Model Card", arXiv 2508.10925): a mixture of experts.

Compared with llama.py:

- The MLP is a choice. A router scores E experts for each token, and only the best K of them compute. The weights in
  memory are many, those that a token meets are few: of the 20.9 billion of gpt-oss-20b about 3.6.
- Attention alternates between a band of 128 positions (even layers) and all positions (odd layers), as in GPT-3.
- Each head has a sink, a learned score that takes part in the softmax, so that a head may attend to nothing.
- All linear layers but the head have biases.
- Rotations are stretched by YaRN (Peng et al. 2023), from 4096 positions in pretraining to 32 times as many.

The formulas are those of the reference implementation, github.com/openai/gpt-oss, `gpt_oss/torch/model.py`.

Shapes: B batch, T positions, N = B·T tokens, C = n_embd, H = n_head, G = n_kv_head, D = head_size, E = n_expert,
K = n_active, F = n_hidden, V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError, shown
from glassgpt.models.attention import Attention, Hook, Mask, window_mask
from glassgpt.models.context import Context
from glassgpt.models.model import ContextModel
from glassgpt.models.rotary import Turn, frequencies, rotate, rotation
from glassgpt.models.sizes import MOST, check_above, check_groups, check_sizes

LIMIT = 7.0  # gates are at most so large, and the values that they multiply at most so far from 0
SLOPE = 1.702  # x·σ(1.702·x) is nearly GELU (Hendrycks & Gimpel 2016)
MOST_EXPERTS = 1 << 16


@dataclass(frozen=True)
class GPTOssConfig:
    """The sizes of a GPT-oss; the defaults are those of gpt-oss-20b, but for its shared heads. Raises UserError."""

    vocab_size: int = 201088
    block_size: int = 131072
    n_layer: int = 24
    n_head: int = 64
    n_embd: int = 2880
    n_kv_head: int | None = None  # key/value heads; None: as many as query heads
    head_size: int | None = 64  # dimensions of a head; None: n_embd / n_head
    n_hidden: int | None = None  # hidden units of each expert; None: n_embd
    n_expert: int = 32  # experts to choose from, all in memory
    n_active: int = 4  # experts that compute for each token
    dropout: float = 0.0
    band_width: int = 128  # positions that a query in a banded layer attends to, including its own
    norm_eps: float = 1e-5  # added to the mean square, so that no norm divides by zero
    rope_base: float = 150_000.0  # the slowest pair of dimensions turns by 1 radian in about so many positions
    rope_factor: float = 32.0  # how much longer than `rope_length` a text may be; 1: rotations are not stretched
    rope_length: int = 4096  # positions in pretraining, before they were stretched
    rope_fast: float = 32.0  # pairs with at least so many turns in `rope_length` are not stretched
    rope_slow: float = 1.0  # pairs with at most so many turns are stretched by the whole factor

    def __post_init__(self) -> None:
        check_sizes(self, whole_heads=False)
        check_groups(self)
        if not 1 <= self.n_active <= self.n_expert <= MOST_EXPERTS:
            raise UserError(
                f"model.n_active = {self.n_active} of model.n_expert = {self.n_expert} experts is out of range: at"
                f" least one must be active, at most all, and there may be at most {MOST_EXPERTS:,}"
            )
        if not 1 <= self.band_width <= MOST["block_size"]:
            width, most = shown(self.band_width), MOST["block_size"]
            raise UserError(f"model.band_width = {width} is out of range: it must be at least 1, at most {most:,}")
        check_above(self, rope_base=1, rope_slow=0, norm_eps=0)
        if not self.rope_slow < self.rope_fast:
            raise UserError(f"model.rope_slow = {self.rope_slow} is not below model.rope_fast = {self.rope_fast}")
        if not self.rope_factor >= 1:
            raise UserError(f"model.rope_factor = {self.rope_factor} is out of range: it must be at least 1")
        if not self.rope_length > 2 * math.pi * self.rope_slow:
            raise UserError(
                f"model.rope_length = {self.rope_length} is out of range: it must be above 2π · model.rope_slow, or no"
                " pair of dimensions turns often enough"
            )

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
        """F, the hidden units of each expert."""
        return self.n_hidden or self.n_embd


def yarn_frequencies(config: GPTOssConfig, device: torch.device) -> Tensor:
    """The frequency of each pair of dimensions, (D / 2), stretched by YaRN (Peng et al. 2023, section 3.2).

    A pair that turns at least `rope_fast` times in `rope_length` positions stays as it is, since it tells near
    positions apart. One that turns at most `rope_slow` times becomes slower by `rope_factor`, so that it never meets
    an angle that pretraining has not seen. Those between are interpolated, linearly in the number of the pair.
    """
    D, base = config.head_dim, config.rope_base
    plain = frequencies(D, base, device)
    if config.rope_factor == 1.0:
        return plain

    def pair_with(turns: float) -> float:
        """The pair, not rounded to a whole one, that turns so often in `rope_length` positions."""
        return D * math.log(config.rope_length / (2 * math.pi * turns)) / (2 * math.log(base))

    first, last = max(pair_with(config.rope_fast), 0.0), min(pair_with(config.rope_slow), D - 1.0)
    pairs = torch.arange(D // 2, device=device, dtype=torch.float32)
    stretch = ((pairs - first) / max(last - first, 1e-3)).clamp(0.0, 1.0)
    return (1 - stretch) * plain + stretch * plain / config.rope_factor


def yarn_scale(config: GPTOssConfig) -> float:
    """What scores are multiplied by: (0.1·ln(factor) + 1)² / √D (Peng et al. 2023, section 3.4).

    Over a longer text the softmax has more keys to choose from. Larger scores keep it as decided as it was. The
    reference implementation multiplies the cosines and sines instead, and so both queries and keys.
    """
    return (0.1 * math.log(config.rope_factor) + 1.0) ** 2 / math.sqrt(config.head_dim)


def turn_of(positions: Tensor, config: GPTOssConfig) -> Turn:
    """The rotation of the heads' dimensions at `positions`, (T,) or (B, T)."""
    return rotation(positions, yarn_frequencies(config, positions.device))


class CausalSelfAttention(nn.Module):
    """Causal self-attention with sinks: over the last `band_width` positions in even layers, over all in odd ones.

    H / G query heads share each key/value head.
    """

    def __init__(self, config: GPTOssConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.config = config
        self.head_dim = config.head_dim
        self.band = None if layer % 2 else config.band_width  # the first layer is banded
        self.q = nn.Linear(config.n_embd, config.n_head * config.head_dim)
        self.k = nn.Linear(config.n_embd, config.kv_heads * config.head_dim)
        self.v = nn.Linear(config.n_embd, config.kv_heads * config.head_dim)
        self.sinks = nn.Parameter(torch.zeros(config.n_head))
        self.inner = Attention(config.dropout, scale=yarn_scale(config))
        self.proj = nn.Linear(config.n_head * config.head_dim, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, context: Context | None = None, turn: Turn | None = None, near: Tensor | None = None
    ) -> Tensor:
        """`turn` is the rotation of the positions, by default that of 0 to T - 1, and `near` the mask of a band."""
        B, T, _ = x.shape
        turn = turn_of(torch.arange(T, device=x.device), self.config) if turn is None else turn
        # (B, T, H·D) to (B, H, T, D), and (B, T, G·D) to (B, G, T, D)
        q, k, v = (layer(x).view(B, T, -1, self.head_dim).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = rotate(q, turn), rotate(k, turn)
        mask: Mask | None = None
        if context is not None:
            k, v, mask = context.append(self.layer, k, v, window=self.band)
        elif self.band is not None:
            mask = window_mask(T, T, self.band, x.device) if near is None else near
        out = self.inner(q, k, v, mask, sinks=self.sinks)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, -1)  # concatenate the heads
        return self.dropout(self.proj(out))


class Routing(nn.Module):
    """The choice of experts, without parameters: the K best scores of a token, and their softmax as weights.

    A `hook` gets `scores`, `experts` and `weights`. A tensor that it returns takes the place of each; None leaves it as
    it is.
    """

    def __init__(self, n_active: int) -> None:
        super().__init__()
        self.n_active = n_active
        self.hook: Hook | None = None

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """scores (B, T, E) to `experts`, the numbers of those chosen, best first, and their `weights`: (B, T, K)."""
        best, experts = self._seen("scores", scores).topk(self.n_active, dim=-1)
        return self._seen("experts", experts), self._seen("weights", best.softmax(dim=-1))

    def _seen(self, name: str, value: Tensor) -> Tensor:
        replacement = self.hook(name, value) if self.hook is not None else None
        return value if replacement is None else replacement


class Experts(nn.Module):
    """E gated MLPs side by side. Each computes for the tokens that chose it, and for no others.

    The hidden units are (up + 1)·gate·σ(1.702·gate), a SwiGLU (Shazeer 2020) in which up is an offset from 1. Both are
    clamped, so that one token cannot produce a huge number. A matrix is stored as (in, out), as in the published files.
    """

    def __init__(self, config: GPTOssConfig) -> None:
        super().__init__()
        E, C, hidden = config.n_expert, config.n_embd, config.hidden
        self.gate_up = nn.Parameter(torch.empty(E, C, 2 * hidden))  # columns 0, 2, 4, … are gates, the others are ups
        self.gate_up_bias = nn.Parameter(torch.empty(E, 2 * hidden))
        self.down = nn.Parameter(torch.empty(E, hidden, C))
        self.down_bias = nn.Parameter(torch.empty(E, C))

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """x (N, C) to the sums (N, C) of what each token's `experts` (N, K) answer, times their `weights` (N, K)."""
        order = experts.flatten().argsort(stable=True)  # of the N·K choices: those of the first expert, and so on
        token = order // experts.size(1)
        parts = x[token].split(self.loads(experts))
        # unbind rather than [e]: the gradient of each matrix goes to its place once, and not with zeros for all others.
        matrices = (matrix.unbind() for matrix in (self.gate_up, self.gate_up_bias, self.down, self.down_bias))
        answers = [self.answer(part, *own) for part, *own in zip(parts, *matrices, strict=True) if len(part)]
        weighted = torch.cat(answers) * weights.flatten()[order, None]
        return weighted.new_zeros(x.shape).index_add(0, token, weighted)

    def loads(self, experts: Tensor) -> list[int]:
        """How many of the choices (N, K) fall on each expert."""
        counts: list[int] = experts.flatten().bincount(minlength=len(self.gate_up)).tolist()
        return counts

    @staticmethod
    def answer(x: Tensor, gate_up: Tensor, gate_up_bias: Tensor, down: Tensor, down_bias: Tensor) -> Tensor:
        """One expert, with its own matrices, for the tokens x (n, C) that chose it: (n, C)."""
        both = x @ gate_up + gate_up_bias  # (n, 2F)
        gate, up = both[:, 0::2].clamp(max=LIMIT), both[:, 1::2].clamp(-LIMIT, LIMIT)
        return ((up + 1) * gate * torch.sigmoid(SLOPE * gate)) @ down + down_bias


class MLP(nn.Module):
    """A mixture of experts (Shazeer et al. 2017): a router chooses which of them compute for a token."""

    def __init__(self, config: GPTOssConfig) -> None:
        super().__init__()
        self.router = nn.Linear(config.n_embd, config.n_expert)
        self.inner = Routing(config.n_active)
        self.experts = Experts(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        experts, weights = self.inner(self.router(x))  # (B, T, K)
        out = self.experts(x.flatten(0, 1), experts.flatten(0, 1), weights.flatten(0, 1))  # (B·T, C)
        return self.dropout(out.view(x.shape))


class Block(nn.Module):
    """Attention moves information between positions, the MLP processes each one; both add to the residual stream."""

    def __init__(self, config: GPTOssConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.attn = CausalSelfAttention(config, layer)
        self.norm2 = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, context: Context | None = None, turn: Turn | None = None, near: Tensor | None = None
    ) -> Tensor:
        """`turn` and `near` are as in the attention, if they are computed already."""
        x = x + self.attn(self.norm1(x), context, turn, near)
        return x + self.mlp(self.norm2(x))


class GPTOss(ContextModel):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`."""

    config: GPTOssConfig
    relative_positions = True

    def __init__(self, config: GPTOssConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Normal with std 0.02, and 0.02 / √(2·n_layer) for the projections into the residual stream, as GPT-2.

        Biases and sinks are zero. OpenAI has not published its own initialisation.
        """
        residual_std = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith(("bias", "sinks")):
                nn.init.zeros_(parameter)
            elif parameter.dim() >= 2:
                into_residual = name.endswith(("attn.proj.weight", "mlp.experts.down"))
                nn.init.normal_(parameter, std=residual_std if into_residual else 0.02)

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to the final residual stream, normalised: (B, T, C)."""
        T = tokens.size(1)
        positions = torch.arange(T, device=tokens.device) if context is None else context.positions(T, tokens.device)
        turn = turn_of(positions, self.config)
        x = self.dropout(self.token_embedding(tokens))
        # One mask for all banded layers. A context has its own.
        near = window_mask(T, T, self.config.band_width, x.device) if context is None else None
        for block in self.blocks:
            x = block(x, context, turn, near)
        if context is not None:
            context.advance(T)
        return self.norm(x)

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))
