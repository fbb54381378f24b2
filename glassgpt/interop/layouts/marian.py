"""The Transformer of 2017, as `transformers` stores it: under the name of Marian, which has its layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.interop.layout import Layout, Option, Stack, as_json, required
from glassgpt.models.transformer import TransformerConfig, sinusoids

ACTIVATIONS = {"relu": "relu", "swish": "swish", "silu": "swish"}  # by their names in the library
ENCODER = {
    "attn.q": ("self_attn.q_proj",),
    "attn.k": ("self_attn.k_proj",),
    "attn.v": ("self_attn.v_proj",),
    "attn.proj": ("self_attn.out_proj",),
    "norm1": ("self_attn_layer_norm",),
    "mlp.up": ("fc1",),
    "mlp.down": ("fc2",),
    "norm2": ("final_layer_norm",),
}
DECODER = ENCODER | {
    "cross.q": ("encoder_attn.q_proj",),
    "cross.k": ("encoder_attn.k_proj",),
    "cross.v": ("encoder_attn.v_proj",),
    "cross.proj": ("encoder_attn.out_proj",),
    "norm2": ("encoder_attn_layer_norm",),
    "norm3": ("final_layer_norm",),
}


def settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `TransformerConfig` beside its sizes."""
    activation = saved.get("activation_function", "gelu")
    if activation not in (known := list(ACTIVATIONS)):
        raise UserError(
            f'activation_function is {as_json(activation)}, but the architecture "transformer" has only'
            f" {', '.join(map(as_json, known))}"
        )
    return {
        "n_encoder_layer": required(saved, "encoder_layers", int, 12),
        "n_hidden": required(saved, "decoder_ffn_dim", int, 4096),
        "activation": ACTIVATIONS[activation],
        "scaled": required(saved, "scale_embedding", bool, False),
    }


def options(config: TransformerConfig) -> dict[str, Option]:
    """What a model of type "marian" must have to be our Transformer with these settings."""
    return {
        "is_encoder_decoder": Option(True),
        "encoder_layers": Option(config.encoder_layers),
        "encoder_attention_heads": Option(config.n_head, absent=16),
        "encoder_ffn_dim": Option(config.hidden, absent=4096),
        "decoder_ffn_dim": Option(config.hidden),
        "activation_function": Option(config.activation, also=("silu",) if config.activation == "swish" else ()),
        "scale_embedding": Option(config.scaled),
        "decoder_vocab_size": Option(None, also=(config.vocab_size,)),
        "share_encoder_decoder_embeddings": Option(True),
        "tie_word_embeddings": Option(True),
    }


def positions(config: TransformerConfig) -> Tensor:
    """(block_size, C): the sinusoids, which older files contain."""
    return sinusoids(torch.arange(config.block_size), config.n_embd)


LAYOUT = Layout(
    architecture="transformer",
    ours='the architecture "transformer"',
    family="Marian",
    model_type="marian",
    model_class="MarianMTModel",
    defaults=TransformerConfig(vocab_size=58101, block_size=1024, n_layer=12, n_head=16, n_embd=1024),
    sizes={
        "vocab_size": "vocab_size",
        "block_size": "max_position_embeddings",
        "n_layer": "decoder_layers",
        "n_head": "decoder_attention_heads",
        "n_embd": "d_model",
    },
    options=options,
    dropouts=("dropout",),
    harmless=(
        "_num_labels",
        "activation_dropout",
        "add_bias_logits",  # the bias of the head is always added
        "attention_dropout",
        "classif_dropout",
        "classifier_dropout",
        "decoder_layerdrop",
        "encoder_layerdrop",
        "init_std",
        "num_hidden_layers",  # another name of encoder_layers
        "renormalize_logits",
        "static_position_embeddings",  # stored positions are compared with the sinusoids
        "unk_token_id",
    ),
    prefix="model.",
    outside={"token_embedding.weight": "model.shared.weight", "head_bias": "final_logits_bias"},
    stacks=(
        Stack(
            "model.encoder.layers.{}",
            ENCODER,
            kinds=("weight", "bias"),
            ours="encoder.blocks",
            count=lambda config: config.encoder_layers,
        ),
        Stack("model.decoder.layers.{}", DECODER, kinds=("weight", "bias"), ours="decoder.blocks"),
    ),
    copies={
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
    },
    computed={
        "model.encoder.embed_positions.weight": positions,
        "model.decoder.embed_positions.weight": positions,
    },
    rows=("head_bias",),
    settings=settings,
)
