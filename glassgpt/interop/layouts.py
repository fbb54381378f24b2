"""How `transformers` stores our architectures: one table for each, for reading and for writing.

A table names the fields of config.json and the tensors. `Layout.names` pairs the names of the tensors, and
`Layout.options` has the fields that must have one value, because our architecture has no such setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from glassgpt.errors import UserError, option
from glassgpt.models import Model, ModelConfig, find_architecture
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.models.modern import NORM_EPS, ROTARY_BASE, ModernConfig, hidden_size


@dataclass(frozen=True)
class Option:
    """A field of config.json that must have one value."""

    value: Any  # as we write it
    also: tuple[Any, ...] = ()  # other values with the same meaning
    absent: Any = None  # what the library takes where the field is missing; None: a value that means the same


@dataclass(frozen=True)
class Layout:
    """The names and options under which `transformers` stores one architecture.

    In `outside` and `in_block` our name comes first. A module that is stored in several equal parts has several names.
    """

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
    block: str
    in_block: Mapping[str, tuple[str, ...]]
    kinds: tuple[str, ...] = ("weight",)  # the parameters of a module in a block
    conv1d: bool = False  # the matrices in blocks are stored as (in, out), not as (out, in)
    fixed: Mapping[str, Any] = field(default_factory=dict)  # fields of our config that the library has no place for
    fixed_costs: str = ""  # what a model with them loses, for the error

    def names(self, n_layer: int) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(our name, names of its parts over there) of every parameter."""
        for our, theirs in self.outside.items():
            yield our, (theirs,)
        for n in range(n_layer):
            for our, parts in self.in_block.items():
                for kind in self.kinds:
                    yield f"blocks.{n}.{our}.{kind}", tuple(f"{self.block.format(n)}.{part}.{kind}" for part in parts)

    def is_transposed(self, our: str, dimensions: int) -> bool:
        """Whether this parameter is stored as (in, out)."""
        return self.conv1d and our.startswith("blocks.") and dimensions == 2

    def config(self, sizes: Mapping[str, int], dropout: float) -> ModelConfig:
        """Our config. Raises UserError for sizes that are out of range."""
        return find_architecture(self.architecture).config(**sizes, **self.fixed, dropout=dropout)


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


def qwen3_options(config: ModernConfig) -> dict[str, Option]:
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
        # transformers 5 reads rope_parameters, transformers 4 the other two.
        "rope_parameters": Option({"rope_type": "default", "rope_theta": ROTARY_BASE}, also=(None,)),
        "rope_theta": Option(ROTARY_BASE),
        "rope_scaling": Option(None),
    }


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
        prefix="transformer.",
        outside={
            "token_embedding.weight": "transformer.wte.weight",
            "position_embedding.weight": "transformer.wpe.weight",
            "norm.weight": "transformer.ln_f.weight",
            "norm.bias": "transformer.ln_f.bias",
        },
        block="transformer.h.{}",
        in_block={
            "norm1": ("ln_1",),
            "attn.qkv": ("attn.c_attn",),
            "attn.proj": ("attn.c_proj",),
            "norm2": ("ln_2",),
            "mlp.up": ("mlp.c_fc",),
            "mlp.down": ("mlp.c_proj",),
        },
        kinds=("weight", "bias"),
        conv1d=True,
    ),
    Layout(
        architecture="modern",
        ours='the architecture "modern"',
        family="Qwen3",
        model_type="qwen3",
        model_class="Qwen3ForCausalLM",
        defaults=ModernConfig(vocab_size=151936, block_size=32768, n_layer=32, n_head=32, n_embd=4096, ngram=1),
        sizes={
            "vocab_size": "vocab_size",
            "block_size": "max_position_embeddings",
            "n_layer": "num_hidden_layers",
            "n_head": "num_attention_heads",
            "n_embd": "hidden_size",
        },
        options=qwen3_options,
        dropouts=("attention_dropout",),
        prefix="model.",
        outside={
            "token_embedding.weight": "model.embed_tokens.weight",
            "norm.weight": "model.norm.weight",
            "head.weight": "lm_head.weight",
        },
        block="model.layers.{}",
        in_block={
            "norm1": ("input_layernorm",),
            "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "attn.norm_q": ("self_attn.q_norm",),
            "attn.norm_k": ("self_attn.k_norm",),
            "attn.proj": ("self_attn.o_proj",),
            "norm2": ("post_attention_layernorm",),
            "mlp.gate": ("mlp.gate_proj",),
            "mlp.up": ("mlp.up_proj",),
            "mlp.down": ("mlp.down_proj",),
        },
        fixed={"ngram": 1},
        fixed_costs="0.15 nats per character more on Tiny Shakespeare after 300 steps",  # docs/log.md, 2026-11-22
    ),
)


def layout_of(model: Model) -> Layout:
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
    known = " and ".join(layout.architecture for layout in LAYOUTS)
    raise UserError(f"only the architectures {known} can be exported: transformers has no equivalent of the others")
