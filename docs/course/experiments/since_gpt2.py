"""What the changes since GPT-2 do, in numbers that need no training.

Four models of one width and depth: their weights, those that compute for a token, and what the KV cache keeps of a text
of 10,000 tokens. Then each change by itself, on random queries and keys.
"""

from __future__ import annotations

import argparse
import math

import torch
from lab import n_parameters, row
from torch.nn import functional as F

from glassgpt.costs.flops import count_active_parameters
from glassgpt.models import Model
from glassgpt.models.attention import Attention
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt_oss import MLP, GPTOss, GPTOssConfig
from glassgpt.models.llama import Llama, LlamaConfig
from glassgpt.models.qwen3 import Qwen3, Qwen3Config
from glassgpt.models.rotary import frequencies, rotate, rotation

C, LAYERS, HEADS, GROUPS = 128, 4, 4, 2
D = C // HEADS
BAND = 64  # positions that every second block of the small GPT-oss sees
VOCABULARY = 65


def models() -> dict[str, Model]:
    """The four, with as many channels, blocks and query heads."""
    sizes = {"vocab_size": VOCABULARY, "block_size": 64, "n_layer": LAYERS, "n_head": HEADS, "n_embd": C}
    shared = {"n_kv_head": GROUPS, "n_hidden": 344}
    few = {"n_kv_head": GROUPS, "n_hidden": 172, "n_expert": 8, "n_active": 2, "head_size": D}
    return {
        "GPT-2": GPT2(GPT2Config(**sizes)),
        "Llama": Llama(LlamaConfig(**sizes, **shared)),
        "Qwen3": Qwen3(Qwen3Config(**sizes, **shared)),
        "GPT-oss": GPTOss(GPTOssConfig(**sizes, **few, band_width=BAND)),
    }


def cache_megabytes(name: str, tokens: int) -> float:
    """What a KV cache keeps in float32: a key and a value for each kept position, block and key/value head."""
    heads = HEADS if name == "GPT-2" else GROUPS
    kept = [min(tokens, BAND) if name == "GPT-oss" and layer % 2 == 0 else tokens for layer in range(LAYERS)]
    return 2 * heads * D * sum(kept) * 4 / 1e6


def rotary_scores(distance: int, places: tuple[int, ...]) -> list[float]:
    """The score of one query and one key, `distance` before it, where the query is at these places."""
    q, k = torch.randn(2, 1, 1, 1, D)
    turns = frequencies(D, 10_000.0)
    turned = [
        (
            rotate(q, rotation(torch.tensor([place]), turns)),
            rotate(k, rotation(torch.tensor([place - distance]), turns)),
        )
        for place in places
    ]
    return [float((q * k).sum()) / math.sqrt(D) for q, k in turned]


def largest_score(scale: float, *, norm: bool) -> float:
    """The largest score of 64 queries and keys that are `scale` times as large as normal numbers."""
    q, k = scale * torch.randn(2, 64, D)
    if norm:
        q, k = (F.rms_norm(x, (D,)) for x in (q, k))
    return float((q @ k.T).abs().max()) / math.sqrt(D)


def weight_of_keys(sink: float | None) -> float:
    """The sum of one head's weights for 16 keys that do not match its query: what is left of 1 goes to the sink."""
    q = torch.ones(1, 1, 1, D)
    k = -0.5 * torch.ones(1, 1, 16, D)
    values = torch.ones(1, 1, 16, D)  # so that the output is the sum of the weights
    sinks = None if sink is None else torch.tensor([sink])
    return float(Attention(causal=False)(q, k, values, sinks=sinks)[0, 0, 0, 0])


def experts_of(tokens: int) -> tuple[list[int], list[int]]:
    """How many of the tokens choose each of eight experts, two each; and the two of the first token."""
    mlp = MLP(GPTOssConfig(n_embd=C, n_hidden=172, n_expert=8, n_active=2))
    for parameter in mlp.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    experts, _ = mlp.inner(mlp.router(torch.randn(1, tokens, C)))
    return experts.flatten().bincount(minlength=8).tolist(), sorted(experts[0, 0].tolist())


@torch.no_grad()
def main() -> None:
    """Prints the table and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=10_000, help="of the text that the cache keeps")
    options = parser.parse_args()
    row("", "weights", "for a token", "cache, MB")
    for name, model in models().items():
        cached = f"{cache_megabytes(name, options.tokens):.2f}"
        row(name, f"{n_parameters(model):,}", f"{count_active_parameters(model):,}", cached)
    print()
    torch.manual_seed(0)
    scores = rotary_scores(4, (4, 10, 1000))
    row("rotary: 4 apart, query at 4, 10, 1000", *scores)
    for scale in (1.0, 10.0):
        kinds = (largest_score(scale, norm=norm) for norm in (False, True))
        row(f"largest score, × {scale:g}: plain, norm", *(f"{score:.1f}" for score in kinds))
    row("weight of keys: no sink, sink of 0", weight_of_keys(None), weight_of_keys(0.0))
    loads, chosen = experts_of(1000)
    print(f"experts of the first token: {chosen}; tokens of each expert: {loads}")


if __name__ == "__main__":
    main()
