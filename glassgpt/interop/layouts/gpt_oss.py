"""GPT-oss, as `transformers` stores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassgpt.errors import UserError
from glassgpt.interop.layout import Layout, Option, Stack, as_json, required, setting
from glassgpt.interop.layouts.llama import OUTSIDE, QKV, SIZES, rope_of, rope_options
from glassgpt.models.gpt_oss import LIMIT, SLOPE, GPTOssConfig

YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip


def settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `GPTOssConfig` beside its sizes. Raises UserError for weights that are quantised otherwise."""
    check_quantization(saved)
    # A null is written by transformers 4 for no scaling; only a missing field stands for the default.
    no_rope = saved.get("rope_parameters") is None and "rope_scaling" not in saved
    rope = rope_of({**saved, "rope_parameters": YARN} if no_rope else saved, 150_000.0)
    found = {"rope_base": required(rope, "rope_theta", float), "rope_factor": 1.0}
    if rope["rope_type"] == "yarn":
        found |= {
            "rope_factor": required(rope, "factor", float),
            "rope_fast": required(rope, "beta_fast", float, 32.0),
            "rope_slow": required(rope, "beta_slow", float, 1.0),
            "rope_length": required(rope, "original_max_position_embeddings", int),
        }
    return found | {
        "n_kv_head": setting(saved, "num_key_value_heads", int, 8),
        "head_size": setting(saved, "head_dim", int, 64),
        "n_hidden": setting(saved, "intermediate_size", int, 2880),
        "band_width": required(saved, "sliding_window", int, 128),
        "norm_eps": required(saved, "rms_norm_eps", float, 1e-5),
    }


def options(config: GPTOssConfig) -> dict[str, Option]:
    """What a model of type "gpt_oss" must have to be our GPT-oss with these settings."""
    kinds = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(config.n_layer)]
    scaling = None
    if config.rope_factor != 1.0:
        scaling = {
            "rope_type": "yarn", "factor": config.rope_factor, "beta_fast": config.rope_fast,
            "beta_slow": config.rope_slow, "truncate": False, "original_max_position_embeddings": config.rope_length,
        }  # fmt: skip
    return {
        "num_key_value_heads": Option(config.kv_heads, also=(None,)),
        "head_dim": Option(config.head_dim, also=(None,)),
        "intermediate_size": Option(config.hidden),
        "sliding_window": Option(config.band_width),
        "layer_types": Option(kinds, also=(None,)),
        "hidden_act": Option("silu"),  # the library ignores it
        "swiglu_alpha": Option(SLOPE),
        "swiglu_limit": Option(LIMIT),
        "rms_norm_eps": Option(config.norm_eps),
        "attention_bias": Option(True),
        "tie_word_embeddings": Option(False),
    } | rope_options(config.rope_base, scaling)


def check_quantization(saved: Mapping[str, Any]) -> None:
    """Raises UserError unless the weights are numbers, or in MXFP4 as interop/mxfp4.py reads them."""
    quantization = saved.get("quantization_config")
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    if method != "mxfp4":
        raise UserError(f'quantization_config has the quant_method {as_json(method)}, only "mxfp4" can be read')


LAYOUT = Layout(
    architecture="gpt_oss",
    ours='the architecture "gpt_oss"',
    family="GPT-oss",
    model_type="gpt_oss",
    model_class="GptOssForCausalLM",
    defaults=GPTOssConfig(n_layer=36, n_expert=128),
    sizes=SIZES | {"n_expert": "num_local_experts", "n_active": "num_experts_per_tok"},
    options=options,
    dropouts=("attention_dropout",),
    prefix="model.",
    outside=OUTSIDE,
    stacks=(
        Stack(
            "model.layers.{}",
            {"norm1": ("input_layernorm",), "norm2": ("post_attention_layernorm",)},
            parameters={
                "attn.sinks": ("self_attn.sinks",),
                "mlp.experts.gate_up": ("mlp.experts.gate_up_proj",),
                "mlp.experts.gate_up_bias": ("mlp.experts.gate_up_proj_bias",),
                "mlp.experts.down": ("mlp.experts.down_proj",),
                "mlp.experts.down_bias": ("mlp.experts.down_proj_bias",),
            },
        ),
        Stack(
            "model.layers.{}",
            QKV | {"attn.proj": ("self_attn.o_proj",), "mlp.router": ("mlp.router",)},
            kinds=("weight", "bias"),
        ),
    ),
    # The first two repeat other fields, and the library ignores them. The next two are for the loss in training.
    harmless=(
        "experts_per_token",
        "initial_context_length",
        "output_router_logits",
        "router_aux_loss_coef",
        "quantization_config",  # checked by the settings
    ),
    settings=settings,
)
