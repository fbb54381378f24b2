"""Llama, as `transformers` stores it, and what Qwen3, GPT-oss and others have in common with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassgpt.errors import UserError
from glassgpt.interop.layout import Layout, Option, Stack, as_json, required, setting
from glassgpt.models import ModelConfig
from glassgpt.models.llama import LlamaConfig
from glassgpt.models.qwen3 import Qwen3Config

SIZES = {
    "vocab_size": "vocab_size",
    "block_size": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
}
OUTSIDE = {
    "token_embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
QKV = {"attn.q": ("self_attn.q_proj",), "attn.k": ("self_attn.k_proj",), "attn.v": ("self_attn.v_proj",)}
REST = {
    "norm1": ("input_layernorm",),
    "attn.proj": ("self_attn.o_proj",),
    "norm2": ("post_attention_layernorm",),
    "mlp.gate": ("mlp.gate_proj",),
    "mlp.up": ("mlp.up_proj",),
    "mlp.down": ("mlp.down_proj",),
}


def rope_of(saved: Mapping[str, Any], base: float) -> dict[str, Any]:
    """What a config.json says of rotary positions, as `rope_parameters` does in transformers 5.

    Version 4 has `rope_theta` and `rope_scaling` instead. `base` is the library's rope_theta where none is given.
    """
    rope = saved.get("rope_parameters") or saved.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise UserError(f"rope_parameters is {as_json(rope)}, not an object")
    given = {"rope_theta": setting(saved, "rope_theta", float, base), "rope_type": rope.get("type", "default")}
    return given | {name: value for name, value in rope.items() if name != "type"}


def rope_options(base: float, scaling: Mapping[str, Any] | None) -> dict[str, Option]:
    """transformers 5 reads rope_parameters, transformers 4 the other two."""
    whole = {"rope_theta": base, "rope_type": "default"} | dict(scaling or {})
    return {
        "rope_parameters": Option(whole, also=(None,)),
        "rope_theta": Option(base),
        "rope_scaling": Option(scaling, also=(None,) if scaling is None else (whole,)),
    }


def grouped_settings(saved: Mapping[str, Any], *, n_hidden: int, eps: float) -> dict[str, Any]:
    """The fields that Llama and Qwen3 have in common, with the library's defaults."""
    return {
        "n_kv_head": setting(saved, "num_key_value_heads", int, None),
        "head_size": setting(saved, "head_dim", int, None),
        "n_hidden": setting(saved, "intermediate_size", int, n_hidden),
        "norm_eps": required(saved, "rms_norm_eps", float, eps),
        "tied": required(saved, "tie_word_embeddings", bool, False),
    }


def grouped_options(config: LlamaConfig | Qwen3Config) -> dict[str, Option]:
    """The fields that Llama and Qwen3 have in common."""
    return {
        "num_key_value_heads": Option(config.kv_heads, also=(None,)),
        "head_dim": Option(config.head_dim, also=(None,)),
        "intermediate_size": Option(config.hidden),
        "hidden_act": Option("silu"),
        "rms_norm_eps": Option(config.norm_eps),
        "attention_bias": Option(False),
        "tie_word_embeddings": Option(config.tied),
    }


def full_attention(config: ModelConfig) -> Option:
    """A list with the kind of every layer."""
    return Option(["full_attention"] * config.n_layer, also=(None,))


def settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `LlamaConfig` beside its sizes."""
    rope = rope_of(saved, 10_000.0)
    found = {"rope_base": required(rope, "rope_theta", float)}
    if rope["rope_type"] == "llama3":
        found |= {
            "rope_factor": required(rope, "factor", float),
            "rope_low": required(rope, "low_freq_factor", float),
            "rope_high": required(rope, "high_freq_factor", float),
            "rope_length": required(rope, "original_max_position_embeddings", int),
        }
    return grouped_settings(saved, n_hidden=11008, eps=1e-6) | found


def options(config: LlamaConfig) -> dict[str, Option]:
    """What a model of type "llama" must have to be our Llama with these settings."""
    scaling = None
    if config.rope_factor != 1.0:
        scaling = {
            "rope_type": "llama3", "factor": config.rope_factor, "low_freq_factor": config.rope_low,
            "high_freq_factor": config.rope_high, "original_max_position_embeddings": config.rope_length,
        }  # fmt: skip
    return grouped_options(config) | {"mlp_bias": Option(False)} | rope_options(config.rope_base, scaling)


LAYOUT = Layout(
    architecture="llama",
    ours='the architecture "llama"',
    family="Llama",
    model_type="llama",
    model_class="LlamaForCausalLM",
    defaults=LlamaConfig(block_size=2048),
    sizes=SIZES,
    options=options,
    dropouts=("attention_dropout",),
    prefix="model.",
    outside=OUTSIDE,
    stacks=(Stack("model.layers.{}", REST | QKV),),
    harmless=("pretraining_tp",),  # computes the same products in parts
    settings=settings,
)
