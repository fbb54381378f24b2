"""BERT, as `transformers` stores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassgpt.interop.layout import Layout, Option, Stack, required
from glassgpt.interop.layouts.llama import SIZES
from glassgpt.models.bert import BertConfig


def settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `BertConfig` beside its sizes."""
    return {
        "n_hidden": required(saved, "intermediate_size", int, 3072),
        "n_segment": required(saved, "type_vocab_size", int, 2),
        "norm_eps": required(saved, "layer_norm_eps", float, 1e-12),
    }


def options(config: BertConfig) -> dict[str, Option]:
    """What a model of type "bert" must have to be our BERT with these settings."""
    return {
        "intermediate_size": Option(config.hidden),
        "type_vocab_size": Option(config.n_segment),
        "layer_norm_eps": Option(config.norm_eps),
        "hidden_act": Option("gelu"),
        "position_embedding_type": Option("absolute"),
        "is_decoder": Option(False),
        "add_cross_attention": Option(False),
        "tie_word_embeddings": Option(True),
    }


LAYOUT = Layout(
    architecture="bert",
    ours='the architecture "bert"',
    family="BERT",
    model_type="bert",
    model_class="BertForMaskedLM",
    defaults=BertConfig(),
    sizes=SIZES,
    options=options,
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    prefix="bert.",
    outside={
        "token_embedding.weight": "bert.embeddings.word_embeddings.weight",
        "position_embedding.weight": "bert.embeddings.position_embeddings.weight",
        "segment_embedding.weight": "bert.embeddings.token_type_embeddings.weight",
        "norm_embedding.weight": "bert.embeddings.LayerNorm.weight",
        "norm_embedding.bias": "bert.embeddings.LayerNorm.bias",
        "head.dense.weight": "cls.predictions.transform.dense.weight",
        "head.dense.bias": "cls.predictions.transform.dense.bias",
        "head.norm.weight": "cls.predictions.transform.LayerNorm.weight",
        "head.norm.bias": "cls.predictions.transform.LayerNorm.bias",
        "head.bias": "cls.predictions.bias",
    },
    stacks=(
        Stack(
            "bert.encoder.layer.{}",
            {
                "attn.q": ("attention.self.query",),
                "attn.k": ("attention.self.key",),
                "attn.v": ("attention.self.value",),
                "attn.proj": ("attention.output.dense",),
                "norm1": ("attention.output.LayerNorm",),
                "mlp.up": ("intermediate.dense",),
                "mlp.down": ("output.dense",),
                "norm2": ("output.LayerNorm",),
            },
            kinds=("weight", "bias"),
        ),
    ),
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    others=("bert.pooler.", "cls.seq_relationship.", "bert.embeddings.position_ids"),
    older={".gamma": ".weight", ".beta": ".bias"},
    harmless=(
        "classifier_dropout",
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    ),
    settings=settings,
)
