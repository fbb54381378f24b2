"""GPT-2, as `transformers` stores it."""

from __future__ import annotations

from glassgpt.interop.layout import Layout, Option, Stack
from glassgpt.models.gpt2 import GPT2Config


def options(config: GPT2Config) -> dict[str, Option]:
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


LAYOUT = Layout(
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
    options=options,
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
)
