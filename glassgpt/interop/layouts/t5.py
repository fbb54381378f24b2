"""T5, as `transformers` stores it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from glassgpt.errors import UserError
from glassgpt.interop.layout import Layout, Option, Stack, as_json, required, setting
from glassgpt.models.t5 import T5Config

ATTENTION = {"q": "q", "k": "k", "v": "v", "proj": "o"}
SELF = {f"attn.{our}": f"layer.0.SelfAttention.{their}" for our, their in ATTENTION.items()}
CROSS = {f"cross.{our}": f"layer.1.EncDecAttention.{their}" for our, their in ATTENTION.items()}
NORMS = {f"norm{n + 1}": f"layer.{n}.layer_norm" for n in range(3)}
BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `T5Config` beside its sizes."""
    mlp = saved.get("feed_forward_proj", "relu")
    if mlp not in ("relu", "gated-gelu"):
        raise UserError(f'feed_forward_proj is {as_json(mlp)}, but the architecture "t5" has "relu" or "gated-gelu"')
    # transformers 5 writes tie_word_embeddings = true whatever the model is, and what was meant into the other field.
    tied = setting(saved, "scale_decoder_outputs", bool, setting(saved, "tie_word_embeddings", bool, True))
    return {
        "n_decoder_layer": setting(saved, "num_decoder_layers", int, None),
        "head_size": required(saved, "d_kv", int, 64),
        "n_hidden": required(saved, "d_ff", int, 2048),
        "gated": mlp == "gated-gelu",
        "tied": tied,
        "norm_eps": required(saved, "layer_norm_epsilon", float, 1e-6),
        "n_bucket": required(saved, "relative_attention_num_buckets", int, 32),
        "max_distance": required(saved, "relative_attention_max_distance", int, 128),
    }


def options(config: T5Config) -> dict[str, Option]:
    """What a model of type "t5" must have to be our T5 with these settings."""
    return {
        "num_decoder_layers": Option(config.decoder_layers, also=(None,)),
        "d_kv": Option(config.head_dim),
        "d_ff": Option(config.hidden),
        "feed_forward_proj": Option("gated-gelu" if config.gated else "relu"),
        "dense_act_fn": Option("gelu_new" if config.gated else "relu"),
        "is_gated_act": Option(config.gated),
        "tie_word_embeddings": Option(config.tied, also=(True,)),
        "scale_decoder_outputs": Option(config.tied),
        "layer_norm_epsilon": Option(config.norm_eps),
        "relative_attention_num_buckets": Option(config.n_bucket),
        "relative_attention_max_distance": Option(config.max_distance),
        "is_encoder_decoder": Option(True),
    }


def stacks_of(theirs: str, parts: Mapping[str, str], mlp: str, count: Callable[[T5Config], int]) -> tuple[Stack, ...]:
    """The names in the blocks of T5's encoder or decoder: `parts`, and those of the MLP, which depend on its kind."""
    block, ours = f"{theirs}.block.{{}}", f"{theirs}.blocks"
    plain = {"mlp.up": (f"{mlp}.wi",), "mlp.down": (f"{mlp}.wo",)}
    gated = {"mlp.gate": (f"{mlp}.wi_0",), "mlp.up": (f"{mlp}.wi_1",), "mlp.down": (f"{mlp}.wo",)}
    return (
        Stack(block, {our: (their,) for our, their in parts.items()}, ours=ours, count=count),
        Stack(block, plain, ours=ours, count=lambda config: 0 if config.gated else count(config)),
        Stack(block, gated, ours=ours, count=lambda config: count(config) if config.gated else 0),
    )


LAYOUT = Layout(
    architecture="t5",
    ours='the architecture "t5"',
    family="T5",
    model_type="t5",
    model_class="T5ForConditionalGeneration",
    defaults=T5Config(),
    sizes={
        "vocab_size": "vocab_size",
        "block_size": "n_positions",
        "n_layer": "num_layers",
        "n_head": "num_heads",
        "n_embd": "d_model",
    },
    options=options,
    dropouts=("dropout_rate",),
    prefix="",
    outside={
        "token_embedding.weight": "shared.weight",
        "encoder.distances.table.weight": f"encoder.{BIAS}",
        "encoder.norm.weight": "encoder.final_layer_norm.weight",
        "decoder.distances.table.weight": f"decoder.{BIAS}",
        "decoder.norm.weight": "decoder.final_layer_norm.weight",
        "head.weight": "lm_head.weight",
    },
    stacks=(
        *stacks_of(
            "encoder",
            SELF | {name: NORMS[name] for name in ("norm1", "norm2")},
            "layer.1.DenseReluDense",
            lambda config: config.n_layer,
        ),
        *stacks_of("decoder", SELF | CROSS | NORMS, "layer.2.DenseReluDense", lambda config: config.decoder_layers),
    ),
    harmless=("classifier_dropout", "initializer_factor"),
    settings=settings,
    copies={
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    },
    # The published 1.0 models have it, from a time when cross-attention was built with a bias that it did not use.
    others=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
)
