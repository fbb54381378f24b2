"""Our modern GPT without n-grams, which is a Qwen3 as `transformers` stores it."""

from __future__ import annotations

from glassgpt.interop.layout import Layout, Option, Stack
from glassgpt.interop.layouts.llama import OUTSIDE, REST, SIZES, rope_options
from glassgpt.interop.layouts.qwen3 import NORMS
from glassgpt.models.modern import NORM_EPS, ROTARY_BASE, ModernConfig, hidden_size


def options(config: ModernConfig) -> dict[str, Option]:
    """What a model of type "qwen3" must have to be our modern GPT."""
    return {
        "num_key_value_heads": Option(config.n_head, also=(None,), absent=32),
        "head_dim": Option(config.n_embd // config.n_head, absent=128),
        "intermediate_size": Option(hidden_size(config.n_embd), absent=22016),
        "hidden_act": Option("silu"),
        "rms_norm_eps": Option(NORM_EPS),
        "attention_bias": Option(False),
        "tie_word_embeddings": Option(False),
        "use_sliding_window": Option(False),
        "layer_types": Option(["full_attention"] * config.n_layer, also=(None,)),
    } | rope_options(ROTARY_BASE, None)


LAYOUT = Layout(
    architecture="modern",
    ours='the architecture "modern"',
    family="Qwen3",
    model_type="qwen3",
    model_class="Qwen3ForCausalLM",
    defaults=ModernConfig(vocab_size=151936, block_size=32768, n_layer=32, n_head=32, n_embd=4096, ngram=1),
    sizes=SIZES,
    options=options,
    dropouts=("attention_dropout",),
    prefix="model.",
    outside=OUTSIDE,
    stacks=(
        Stack(
            "model.layers.{}",
            REST | NORMS | {"attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")},
        ),
    ),
    harmless=("max_window_layers", "sliding_window"),
    fixed={"ngram": 1},
    fixed_costs="0.15 nats per character more on Tiny Shakespeare after 300 steps",  # docs/log.md, 2026-11-22
)
