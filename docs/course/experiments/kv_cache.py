"""Section 10 with a KV cache: the same logits and the same text, in less time.

    python docs/course/experiments/kv_cache.py ladder/s10-decoder

First it reads a text of the run's window with and without the cache. Then it measures the time of one new token after
texts of growing length. For that it needs a longer window, so it takes the run's other sizes with random weights: the
time does not depend on what they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import torch
from torch import Tensor

import glassgpt as gg
from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.ladder.s10_decoder import CausalSelfAttention, DecoderModel


class CachedAttention(CausalSelfAttention):
    """The attention of section 10, which keeps the keys and values of earlier calls."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__(config)
        empty = torch.empty(1, config.n_head, 0, config.n_embd // config.n_head)  # (B, H, 0, D)
        self.keys, self.values = empty, empty

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=-1))
        self.keys = torch.cat([self.keys, k], dim=2)  # (B, H, all positions so far, D)
        self.values = torch.cat([self.values, v], dim=2)
        out = self.inner(q, self.keys, self.values)
        return self.dropout(self.proj(out.transpose(1, 2).reshape(B, T, C)))


class CachedDecoder(DecoderModel):
    """Section 10 for one text: each call gets only the tokens that are new."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__(config)
        self.length = 0  # positions in the cache
        for block in self.blocks:
            block.attn = CachedAttention(config)

    def features(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(self.length, self.length + tokens.size(1))
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        for block in self.blocks:
            x = block(x)
        self.length += tokens.size(1)
        return self.norm(x)


def with_cache(model: DecoderModel) -> CachedDecoder:
    """The same weights, and an empty cache."""
    cached = CachedDecoder(model.config)
    cached.load_state_dict(model.state_dict())
    return cached.eval()


def compare(model: DecoderModel) -> None:
    """Prints how far the logits of both are apart, token by token, and the size of the cache."""
    T = model.config.block_size
    tokens, cached = torch.randint(model.config.vocab_size, (1, T)), with_cache(model)
    one_by_one = torch.cat([cached(tokens[:, t : t + 1]) for t in range(T)], dim=1)
    print(f"largest difference of a logit: {1e6 * (one_by_one - model(tokens)).abs().max():.1f} millionths")
    kept = sum(block.attn.keys.nbytes + block.attn.values.nbytes for block in cached.blocks)
    print(f"the cache holds {kept:,} bytes after {T} tokens")


def milliseconds(model: DecoderModel, length: int, repeats: int) -> tuple[float, float]:
    """Those of one more token after `length` - 1 others, without and with a cache: the shortest of several times."""
    tokens, cached = torch.randint(model.config.vocab_size, (1, length)), with_cache(model)
    cached(tokens[:, :-1])
    kept = [(block.attn.keys, block.attn.values) for block in cached.blocks]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        start = time.perf_counter()
        model(tokens)
        middle = time.perf_counter()
        cached(tokens[:, -1:])
        times[0].append(middle - start)
        times[1].append(time.perf_counter() - middle)
        cached.length = length - 1  # forget this token, to measure it again
        for block, (keys, values) in zip(cached.blocks, kept, strict=True):
            block.attn.keys, block.attn.values = keys, values
    return 1000 * min(times[0]), 1000 * min(times[1])


@torch.no_grad()
def main() -> None:
    """Compares, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="of section 10")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = gg.load(options.run).model.cpu()
    compare(model)
    longer = DecoderModel(dataclasses.replace(model.config, block_size=max(options.lengths))).eval()
    print(f"{'tokens':>6}{'without':>12}{'with':>12}{'ratio':>9}")
    for length in options.lengths:
        without, with_one = milliseconds(longer, length, options.repeats)
        print(f"{length:>6}{without:>9.1f} ms{with_one:>9.1f} ms{without / with_one:>9.1f}", flush=True)


if __name__ == "__main__":
    main()
