"""Qwen3, as `transformers` stores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassgpt.interop.layout import Layout, Option, Stack, required, setting
from glassgpt.interop.layouts.llama import (
    OUTSIDE,
    QKV,
    REST,
    SIZES,
    full_attention,
    grouped_options,
    grouped_settings,
    rope_of,
    rope_options,
)
from glassgpt.models.qwen3 import Qwen3Config

NORMS = {"attn.norm_q": ("self_attn.q_norm",), "attn.norm_k": ("self_attn.k_norm",)}


def settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Qwen3Config` beside its sizes."""
    rope = rope_of(saved, 10_000.0)
    found = grouped_settings(saved, n_hidden=22016, eps=1e-6) | {"rope_base": required(rope, "rope_theta", float)}
    return found | {"head_size": setting(saved, "head_dim", int, 128)}


def options(config: Qwen3Config) -> dict[str, Option]:
    """What a model of type "qwen3" must have to be our Qwen3 with these settings."""
    return (
        grouped_options(config)
        | {"use_sliding_window": Option(False), "layer_types": full_attention(config)}
        | rope_options(config.rope_base, None)
    )


LAYOUT = Layout(
    architecture="qwen3",
    ours='the architecture "qwen3"',
    family="Qwen3",
    model_type="qwen3",
    model_class="Qwen3ForCausalLM",
    defaults=Qwen3Config(block_size=32768, n_layer=32, n_head=32, n_embd=4096),
    sizes=SIZES,
    options=options,
    dropouts=("attention_dropout",),
    prefix="model.",
    outside=OUTSIDE,
    stacks=(Stack("model.layers.{}", REST | QKV | NORMS),),
    harmless=("max_window_layers", "sliding_window"),  # without use_sliding_window they mean nothing
    settings=settings,
)
