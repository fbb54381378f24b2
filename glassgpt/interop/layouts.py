"""How `transformers` stores our architectures: one table for each, for reading and for writing.

A table names the fields of config.json and the tensors. `Layout.names` pairs the names of the tensors, and
`Layout.options` has the fields that must have one value, because our architecture has no such setting.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glassgpt.errors import UserError, option
from glassgpt.models import EncoderDecoderModel, Model, ModelConfig, find_architecture
from glassgpt.models.bert import BertConfig
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.models.gpt_oss import LIMIT, SLOPE, GPTOssConfig
from glassgpt.models.llama import LlamaConfig
from glassgpt.models.modern import NORM_EPS, ROTARY_BASE, ModernConfig, hidden_size
from glassgpt.models.qwen3 import Qwen3Config
from glassgpt.models.t5 import T5Config
from glassgpt.models.transformer import TransformerConfig, sinusoids

MOST_SHOWN = 300  # characters of a value in a message
# Fields of a config.json that do not change a logit: names, dtypes, and how to train, to generate or to classify.
HARMLESS = (
    "_attn_implementation", "_name_or_path", "architectures", "attn_implementation", "bad_words_ids",
    "begin_suppress_tokens", "bias", "bos_token_id", "chunk_size_feed_forward", "decoder_start_token_id",
    "diversity_penalty", "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "id2label",
    "initializer_range", "label2id", "language", "length_penalty", "max_length", "min_length", "model_type",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_past", "output_scores", "pad_token_id", "prefix", "problem_type",
    "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate", "sep_token_id",
    "suppress_tokens", "task_specific_params", "temperature", "tokenizer_class", "top_k", "top_p", "torch_dtype",
    "torchscript", "transformers_version", "typical_p", "unsloth_version", "use_cache",
)  # fmt: skip


@dataclass(frozen=True)
class Option:
    """A field of config.json that must have one value."""

    value: Any  # as we write it
    also: tuple[Any, ...] = ()  # other values with the same meaning
    absent: Any = None  # what the library takes where the field is missing; None: a value that means the same


@dataclass(frozen=True)
class Stack:
    """The names in the blocks of one stack: a decoder, or an encoder. Our name comes first.

    A module that is stored in several equal parts has several names.
    """

    block: str  # with {} for the number of the block
    modules: Mapping[str, tuple[str, ...]]
    kinds: tuple[str, ...] = ("weight",)  # the parameters of a module
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # single ones, with their whole names
    ours: str = "blocks"
    count: Callable[[Any], int] = lambda config: config.n_layer  # of its blocks, by our config

    def names(self, config: ModelConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(our name, names of its parts over there) of every parameter."""
        inside = {f"{our}.{kind}": tuple(f"{part}.{kind}" for part in parts)
                  for our, parts in self.modules.items() for kind in self.kinds} | dict(self.parameters)  # fmt: skip
        for n in range(self.count(config)):
            for our, parts in inside.items():
                yield f"{self.ours}.{n}.{our}", tuple(f"{self.block.format(n)}.{part}" for part in parts)


@dataclass(frozen=True)
class Layout:
    """The names and options under which `transformers` stores one architecture. In `outside` our name comes first."""

    architecture: str  # our name
    ours: str  # how a message names it
    family: str  # the name of the model over there
    model_type: str
    model_class: str
    defaults: ModelConfig  # the sizes that missing fields of config.json stand for
    sizes: Mapping[str, str]
    options: Callable[[Any], Mapping[str, Option]]  # by our config
    dropouts: tuple[str, ...]
    prefix: str  # of all tensors but the head; a file of the model without a head does not have it
    outside: Mapping[str, str]
    stacks: tuple[Stack, ...]
    others: tuple[str, ...] = ()  # how the names of tensors begin that no logit depends on: left out
    older: Mapping[str, str] = field(default_factory=dict)  # how names end in older files, and how they end now
    copies: Mapping[str, str] = field(default_factory=dict)  # what a file may have a second time, and its first name
    computed: Mapping[str, Callable[[Any], Tensor]] = field(default_factory=dict)  # by our config; a file may have them
    rows: tuple[str, ...] = ()  # our vectors (n,) that are stored as one row (1, n)
    conv1d: bool = False  # the matrices in blocks are stored as (in, out), not as (out, in)
    harmless: tuple[str, ...] = ()  # further fields of config.json that do not change a logit
    settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {}  # other fields of our config
    fixed: Mapping[str, Any] = field(default_factory=dict)  # fields of our config that the library has no place for
    fixed_costs: str = ""  # what a model with them loses, for the error

    @property
    def generates(self) -> bool:
        """Whether the model continues a text."""
        return find_architecture(self.architecture).kind != "encoder"

    def names(self, config: ModelConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(our name, names of its parts over there) of every parameter."""
        for our, theirs in self.outside.items():
            if our != "head.weight" or not getattr(config, "tied", False):
                yield our, (theirs,)
        for stack in self.stacks:
            yield from stack.names(config)

    def is_transposed(self, our: str, dimensions: int) -> bool:
        """Whether this parameter is stored as (in, out)."""
        return self.conv1d and our.startswith("blocks.") and dimensions == 2

    def config(self, settings: Mapping[str, Any], dropout: float) -> ModelConfig:
        """Our config. Raises UserError for sizes that are out of range."""
        return find_architecture(self.architecture).config(**settings, **self.fixed, dropout=dropout)


def gpt2_options(config: GPT2Config) -> dict[str, Option]:
    """What a model of type "gpt2" must have to be the GPT-2 of the paper."""
    return {
        "activation_function": Option("gelu_new", also=("gelu_pytorch_tanh",)),  # two names of one function
        "layer_norm_epsilon": Option(1e-5),
        "scale_attn_weights": Option(True),
        "scale_attn_by_inverse_layer_idx": Option(False),
        "add_cross_attention": Option(False),
        "tie_word_embeddings": Option(True),
        "n_inner": Option(None, also=(4 * config.n_embd,)),
    }


def modern_options(config: ModernConfig) -> dict[str, Option]:
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


def as_json(value: Any) -> str:
    """A value of config.json as a message shows it: its beginning, if it is long."""
    text = json.dumps(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def setting(saved: Mapping[str, Any], name: str, kind: type, absent: Any) -> Any:
    """A field of config.json, or what the library takes where it is missing.

    Raises UserError for another type, and for NaN and infinity, which JSON files of Python may have.
    """
    value = saved.get(name, absent)
    if kind is float and type(value) is int:
        value = float(value)
    finite = not isinstance(value, float) or math.isfinite(value)
    if value is not None and (type(value) is not kind or not finite):
        words = {int: "an integer", float: "a finite number", bool: "true or false"}[kind]
        raise UserError(f"{name} is {as_json(value)}, not {words}")
    return value


def required(saved: Mapping[str, Any], name: str, kind: type, absent: Any = None) -> Any:
    """A field like `setting` that may not be null. Raises UserError if it is, or if it is missing without `absent`."""
    if (value := setting(saved, name, kind, absent)) is None:
        raise UserError(f"{name} is missing or null")
    return value


def rope_of(saved: Mapping[str, Any], base: float) -> dict[str, Any]:
    """What a config.json says of rotary positions, as `rope_parameters` does in transformers 5.

    Version 4 has `rope_theta` and `rope_scaling` instead. `base` is the library's rope_theta where none is given.
    """
    rope = saved.get("rope_parameters") or saved.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise UserError(f"rope_parameters is {as_json(rope)}, not an object")
    given = {"rope_theta": setting(saved, "rope_theta", float, base), "rope_type": rope.get("type", "default")}
    return given | {name: value for name, value in rope.items() if name != "type"}


def grouped_settings(saved: Mapping[str, Any], *, n_hidden: int, eps: float) -> dict[str, Any]:
    """The fields that Llama and Qwen3 have in common, with the library's defaults."""
    return {
        "n_kv_head": setting(saved, "num_key_value_heads", int, None),
        "head_size": setting(saved, "head_dim", int, None),
        "n_hidden": setting(saved, "intermediate_size", int, n_hidden),
        "norm_eps": required(saved, "rms_norm_eps", float, eps),
        "tied": required(saved, "tie_word_embeddings", bool, False),
    }


def llama_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
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


def llama_options(config: LlamaConfig) -> dict[str, Option]:
    """What a model of type "llama" must have to be our Llama with these settings."""
    scaling = None
    if config.rope_factor != 1.0:
        scaling = {
            "rope_type": "llama3", "factor": config.rope_factor, "low_freq_factor": config.rope_low,
            "high_freq_factor": config.rope_high, "original_max_position_embeddings": config.rope_length,
        }  # fmt: skip
    return grouped_options(config) | {"mlp_bias": Option(False)} | rope_options(config.rope_base, scaling)


def qwen3_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Qwen3Config` beside its sizes."""
    rope = rope_of(saved, 10_000.0)
    found = grouped_settings(saved, n_hidden=22016, eps=1e-6) | {"rope_base": required(rope, "rope_theta", float)}
    return found | {"head_size": setting(saved, "head_dim", int, 128)}


def qwen3_options(config: Qwen3Config) -> dict[str, Option]:
    """What a model of type "qwen3" must have to be our Qwen3 with these settings."""
    return (
        grouped_options(config)
        | {"use_sliding_window": Option(False), "layer_types": full_attention(config)}
        | rope_options(config.rope_base, None)
    )


def bert_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `BertConfig` beside its sizes."""
    return {
        "n_hidden": required(saved, "intermediate_size", int, 3072),
        "n_segment": required(saved, "type_vocab_size", int, 2),
        "norm_eps": required(saved, "layer_norm_eps", float, 1e-12),
    }


def bert_options(config: BertConfig) -> dict[str, Option]:
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


YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip


def gpt_oss_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
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


def gpt_oss_options(config: GPTOssConfig) -> dict[str, Option]:
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


MARIAN_ACTIVATIONS = {"relu": "relu", "swish": "swish", "silu": "swish"}  # by their names in the library


def marian_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `TransformerConfig` beside its sizes."""
    activation = saved.get("activation_function", "gelu")
    if activation not in (known := list(MARIAN_ACTIVATIONS)):
        raise UserError(
            f'activation_function is {as_json(activation)}, but the architecture "transformer" has only'
            f" {', '.join(map(as_json, known))}"
        )
    return {
        "n_encoder_layer": required(saved, "encoder_layers", int, 12),
        "n_hidden": required(saved, "decoder_ffn_dim", int, 4096),
        "activation": MARIAN_ACTIVATIONS[activation],
        "scaled": required(saved, "scale_embedding", bool, False),
    }


def marian_options(config: TransformerConfig) -> dict[str, Option]:
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


def marian_positions(config: TransformerConfig) -> Tensor:
    """(block_size, C): the sinusoids, which older files contain."""
    return sinusoids(torch.arange(config.block_size), config.n_embd)


def t5_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
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


def t5_options(config: T5Config) -> dict[str, Option]:
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


def full_attention(config: ModelConfig) -> Option:
    """A list with the kind of every layer."""
    return Option(["full_attention"] * config.n_layer, also=(None,))


def rope_options(base: float, scaling: Mapping[str, Any] | None) -> dict[str, Option]:
    """transformers 5 reads rope_parameters, transformers 4 the other two."""
    whole = {"rope_theta": base, "rope_type": "default"} | dict(scaling or {})
    return {
        "rope_parameters": Option(whole, also=(None,)),
        "rope_theta": Option(base),
        "rope_scaling": Option(scaling, also=(None,) if scaling is None else (whole,)),
    }


LLAMA_SIZES = {
    "vocab_size": "vocab_size",
    "block_size": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
}
LLAMA_OUTSIDE = {
    "token_embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
LLAMA_QKV = {"attn.q": ("self_attn.q_proj",), "attn.k": ("self_attn.k_proj",), "attn.v": ("self_attn.v_proj",)}
QWEN3_NORMS = {"attn.norm_q": ("self_attn.q_norm",), "attn.norm_k": ("self_attn.k_norm",)}
LLAMA_REST = {
    "norm1": ("input_layernorm",),
    "attn.proj": ("self_attn.o_proj",),
    "norm2": ("post_attention_layernorm",),
    "mlp.gate": ("mlp.gate_proj",),
    "mlp.up": ("mlp.up_proj",),
    "mlp.down": ("mlp.down_proj",),
}

MARIAN_ENCODER = {
    "attn.q": ("self_attn.q_proj",),
    "attn.k": ("self_attn.k_proj",),
    "attn.v": ("self_attn.v_proj",),
    "attn.proj": ("self_attn.out_proj",),
    "norm1": ("self_attn_layer_norm",),
    "mlp.up": ("fc1",),
    "mlp.down": ("fc2",),
    "norm2": ("final_layer_norm",),
}
MARIAN_DECODER = MARIAN_ENCODER | {
    "cross.q": ("encoder_attn.q_proj",),
    "cross.k": ("encoder_attn.k_proj",),
    "cross.v": ("encoder_attn.v_proj",),
    "cross.proj": ("encoder_attn.out_proj",),
    "norm2": ("encoder_attn_layer_norm",),
    "norm3": ("final_layer_norm",),
}


def t5_stacks(theirs: str, parts: Mapping[str, str], mlp: str, count: Callable[[T5Config], int]) -> tuple[Stack, ...]:
    """The names in the blocks of T5's encoder or decoder: `parts`, and those of the MLP, which depend on its kind."""
    block, ours = f"{theirs}.block.{{}}", f"{theirs}.blocks"
    plain = {"mlp.up": (f"{mlp}.wi",), "mlp.down": (f"{mlp}.wo",)}
    gated = {"mlp.gate": (f"{mlp}.wi_0",), "mlp.up": (f"{mlp}.wi_1",), "mlp.down": (f"{mlp}.wo",)}
    return (
        Stack(block, {our: (their,) for our, their in parts.items()}, ours=ours, count=count),
        Stack(block, plain, ours=ours, count=lambda config: 0 if config.gated else count(config)),
        Stack(block, gated, ours=ours, count=lambda config: count(config) if config.gated else 0),
    )


T5_ATTENTION = {"q": "q", "k": "k", "v": "v", "proj": "o"}
T5_SELF = {f"attn.{our}": f"layer.0.SelfAttention.{their}" for our, their in T5_ATTENTION.items()}
T5_CROSS = {f"cross.{our}": f"layer.1.EncDecAttention.{their}" for our, their in T5_ATTENTION.items()}
T5_NORMS = {f"norm{n + 1}": f"layer.{n}.layer_norm" for n in range(3)}
T5_BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"

LAYOUTS = (
    Layout(
        architecture="gpt2",
        ours="GPT-2",
        family="GPT-2",
        model_type="gpt2",
        model_class="GPT2LMHeadModel",
        defaults=GPT2Config(),
        sizes={
            "vocab_size": "vocab_size",
            "block_size": "n_positions",
            "n_layer": "n_layer",
            "n_head": "n_head",
            "n_embd": "n_embd",
        },
        options=gpt2_options,
        dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        harmless=(
            "n_ctx",
            "reorder_and_upcast_attn",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ),
        prefix="transformer.",
        outside={
            "token_embedding.weight": "transformer.wte.weight",
            "position_embedding.weight": "transformer.wpe.weight",
            "norm.weight": "transformer.ln_f.weight",
            "norm.bias": "transformer.ln_f.bias",
        },
        stacks=(
            Stack(
                "transformer.h.{}",
                {
                    "norm1": ("ln_1",),
                    "attn.qkv": ("attn.c_attn",),
                    "attn.proj": ("attn.c_proj",),
                    "norm2": ("ln_2",),
                    "mlp.up": ("mlp.c_fc",),
                    "mlp.down": ("mlp.c_proj",),
                },
                kinds=("weight", "bias"),
            ),
        ),
        conv1d=True,
    ),
    Layout(
        architecture="modern",
        ours='the architecture "modern"',
        family="Qwen3",
        model_type="qwen3",
        model_class="Qwen3ForCausalLM",
        defaults=ModernConfig(vocab_size=151936, block_size=32768, n_layer=32, n_head=32, n_embd=4096, ngram=1),
        sizes=LLAMA_SIZES,
        options=modern_options,
        dropouts=("attention_dropout",),
        prefix="model.",
        outside=LLAMA_OUTSIDE,
        stacks=(
            Stack(
                "model.layers.{}",
                LLAMA_REST | QWEN3_NORMS | {"attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")},
            ),
        ),
        harmless=("max_window_layers", "sliding_window"),
        fixed={"ngram": 1},
        fixed_costs="0.15 nats per character more on Tiny Shakespeare after 300 steps",  # docs/log.md, 2026-11-22
    ),
    Layout(
        architecture="qwen3",
        ours='the architecture "qwen3"',
        family="Qwen3",
        model_type="qwen3",
        model_class="Qwen3ForCausalLM",
        defaults=Qwen3Config(block_size=32768, n_layer=32, n_head=32, n_embd=4096),
        sizes=LLAMA_SIZES,
        options=qwen3_options,
        dropouts=("attention_dropout",),
        prefix="model.",
        outside=LLAMA_OUTSIDE,
        stacks=(Stack("model.layers.{}", LLAMA_REST | LLAMA_QKV | QWEN3_NORMS),),
        harmless=("max_window_layers", "sliding_window"),  # without use_sliding_window they mean nothing
        settings=qwen3_settings,
    ),
    Layout(
        architecture="llama",
        ours='the architecture "llama"',
        family="Llama",
        model_type="llama",
        model_class="LlamaForCausalLM",
        defaults=LlamaConfig(block_size=2048),
        sizes=LLAMA_SIZES,
        options=llama_options,
        dropouts=("attention_dropout",),
        prefix="model.",
        outside=LLAMA_OUTSIDE,
        stacks=(Stack("model.layers.{}", LLAMA_REST | LLAMA_QKV),),
        harmless=("pretraining_tp",),  # computes the same products in parts
        settings=llama_settings,
    ),
    Layout(
        architecture="bert",
        ours='the architecture "bert"',
        family="BERT",
        model_type="bert",
        model_class="BertForMaskedLM",
        defaults=BertConfig(),
        sizes=LLAMA_SIZES,
        options=bert_options,
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
        settings=bert_settings,
    ),
    Layout(
        architecture="gpt_oss",
        ours='the architecture "gpt_oss"',
        family="GPT-oss",
        model_type="gpt_oss",
        model_class="GptOssForCausalLM",
        defaults=GPTOssConfig(n_layer=36, n_expert=128),
        sizes=LLAMA_SIZES | {"n_expert": "num_local_experts", "n_active": "num_experts_per_tok"},
        options=gpt_oss_options,
        dropouts=("attention_dropout",),
        prefix="model.",
        outside=LLAMA_OUTSIDE,
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
                LLAMA_QKV | {"attn.proj": ("self_attn.o_proj",), "mlp.router": ("mlp.router",)},
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
        settings=gpt_oss_settings,
    ),
    Layout(
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
        options=marian_options,
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
                MARIAN_ENCODER,
                kinds=("weight", "bias"),
                ours="encoder.blocks",
                count=lambda config: config.encoder_layers,
            ),
            Stack("model.decoder.layers.{}", MARIAN_DECODER, kinds=("weight", "bias"), ours="decoder.blocks"),
        ),
        copies={
            "model.encoder.embed_tokens.weight": "model.shared.weight",
            "model.decoder.embed_tokens.weight": "model.shared.weight",
        },
        computed={
            "model.encoder.embed_positions.weight": marian_positions,
            "model.decoder.embed_positions.weight": marian_positions,
        },
        rows=("head_bias",),
        settings=marian_settings,
    ),
    Layout(
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
        options=t5_options,
        dropouts=("dropout_rate",),
        prefix="",
        outside={
            "token_embedding.weight": "shared.weight",
            "encoder.distances.table.weight": f"encoder.{T5_BIAS}",
            "encoder.norm.weight": "encoder.final_layer_norm.weight",
            "decoder.distances.table.weight": f"decoder.{T5_BIAS}",
            "decoder.norm.weight": "decoder.final_layer_norm.weight",
            "head.weight": "lm_head.weight",
        },
        stacks=(
            *t5_stacks(
                "encoder",
                T5_SELF | {name: T5_NORMS[name] for name in ("norm1", "norm2")},
                "layer.1.DenseReluDense",
                lambda config: config.n_layer,
            ),
            *t5_stacks(
                "decoder", T5_SELF | T5_CROSS | T5_NORMS, "layer.2.DenseReluDense", lambda config: config.decoder_layers
            ),
        ),
        harmless=("classifier_dropout", "initializer_factor"),
        settings=t5_settings,
        copies={
            "encoder.embed_tokens.weight": "shared.weight",
            "decoder.embed_tokens.weight": "shared.weight",
        },
        # The published 1.0 models have it, from a time when cross-attention was built with a bias that it did not use.
        others=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
    ),
)


def layout_of(model: Model | EncoderDecoderModel) -> Layout:
    """The layout of a model's architecture.

    Raises UserError if `transformers` has no equivalent of the architecture, or of one of the model's settings.
    """
    for layout in LAYOUTS:
        if isinstance(model.config, find_architecture(layout.architecture).config):
            for name, value in layout.fixed.items():
                if (had := getattr(model.config, name)) != value:
                    raise UserError(
                        f"a run with model.{name} = {had} cannot be exported, because no other program has a place for"
                        f" that: train one with {option(**{f'model.{name}': value})}, which is exported as"
                        f" {layout.family} ({layout.fixed_costs})"
                    )
            return layout
    known = ", ".join(layout.architecture for layout in LAYOUTS)
    raise UserError(f"only the architectures {known} can be exported: transformers has no equivalent of the others")
