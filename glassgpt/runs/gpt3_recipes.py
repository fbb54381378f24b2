"""The eight sizes of GPT-3 as recipes, from one table.

Brown et al. 2020, "Language Models are Few-Shot Learners": table 2.1 has sizes, learning rates and batches, appendix
B the rest. Two rows of the table are inconsistent: 24 heads of 128 do not make a width of 2048, nor 40 heads of 128 a
width of 5140. With 16 heads, and a width of 5120, the parameter counts are those of table D.1 (1,320M and 12,850M). The
published batches of 0.5M, 1M and 2M tokens are rounded to powers of two, 3.2M to 1,600 rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

TOKENS, DECAY_TOKENS, WARMUP_TOKENS = 300e9, 260e9, 375e6


class Size(NamedTuple):
    """A row of table 2.1; `batch_tokens` per optimizer step."""

    n_layer: int
    n_head: int
    n_embd: int
    lr: float
    batch_tokens: int


GPT3_SIZES = {
    "gpt3-125m": Size(12, 12, 768, 6e-4, 2**19),
    "gpt3-350m": Size(24, 16, 1024, 3e-4, 2**19),
    "gpt3-760m": Size(24, 16, 1536, 2.5e-4, 2**19),
    "gpt3-1.3b": Size(24, 16, 2048, 2e-4, 2**20),
    "gpt3-2.7b": Size(32, 32, 2560, 1.6e-4, 2**20),
    "gpt3-6.7b": Size(32, 32, 4096, 1.2e-4, 2**21),
    "gpt3-13b": Size(40, 40, 5120, 1e-4, 2**21),
    "gpt3-175b": Size(96, 96, 12288, 6e-5, 1600 * 2048),
}


def gpt3_recipe(name: str) -> dict[str, Any]:
    """The recipe for a name in the table, in the form of a TOML file."""
    size = GPT3_SIZES[name]
    return {
        "about": f"GPT-3 {name.removeprefix('gpt3-').upper()} as published: 300B tokens",
        "needs": "GPUs",
        "model": {
            "architecture": "gpt3", "vocab_size": 50257, "padded_vocab_size": 50304,  # to a multiple of 128
            "block_size": 2048, "n_layer": size.n_layer, "n_head": size.n_head, "n_embd": size.n_embd, "dropout": 0.0,
            "band_width": 128,  # not published
        },
        "tokenizer": {"name": "gpt2"},
        "optimizer": {"lr": size.lr, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1},
        "schedule": {
            "name": "cosine",
            "warmup_steps": round(WARMUP_TOKENS / size.batch_tokens),
            "decay_steps": round(DECAY_TOKENS / size.batch_tokens),  # constant at min_lr from there on
            "min_lr": round(size.lr / 10, 8),
        },
        "training": {
            "max_steps": round(TOKENS / size.batch_tokens), "batch_tokens": size.batch_tokens, "micro_batch": "auto",
            "grad_clip": 1.0,
        },
        "machine": {"compile": True},
    }  # fmt: skip
