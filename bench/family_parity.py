"""The families of models here and in `transformers`: how far logits and gradients differ; a table in Markdown.

    python bench/family_parity.py                      # the version in .venv
    .venv-parity/bin/python bench/family_parity.py     # 4.56, after `make parity`

The models are small and every tensor of them is random. A difference is relative to the largest value; for gradients it
is the worst of all tensors that have one.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import transformers
from torch import Tensor

import glassgpt as gg
from glassgpt.interop.huggingface import names_in
from glassgpt.interop.layouts import layout_of

V, B, T = 300, 3, 40
WIDTHS = {"vocab_size": V, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
          "intermediate_size": 40, "max_position_embeddings": 48}  # fmt: skip
GROUPED = WIDTHS | {"num_key_value_heads": 2, "head_dim": 8}
MARIAN = {"vocab_size": V, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
          "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 48,
          "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1, "dropout": 0.0,
          "activation_function": "swish"}  # fmt: skip
T5 = {"vocab_size": V, "d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
GPT2 = {"vocab_size": V, "n_positions": 48, "n_embd": 24, "n_layer": 2, "n_head": 4, "bos_token_id": 0,
        "eos_token_id": 0}  # fmt: skip
CASES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("gpt2", "GPT2", "GPT2LMHeadModel", GPT2),
    ("llama", "Llama", "LlamaForCausalLM", GROUPED),
    ("qwen3", "Qwen3", "Qwen3ForCausalLM", GROUPED),
    ("gpt_oss", "GptOss", "GptOssForCausalLM",
     GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5}),
    ("bert", "Bert", "BertForMaskedLM", WIDTHS),
    ("transformer (Marian)", "Marian", "MarianMTModel", MARIAN),
    ("t5 1.0", "T5", "T5ForConditionalGeneration", T5),
    ("t5 1.1", "T5", "T5ForConditionalGeneration", T5 | {"feed_forward_proj": "gated-gelu"}),
)  # fmt: skip


def main() -> None:
    """Prints the table."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}\n")
    print("| architecture | logits | gradients |\n| --- | --- | --- |")
    for name, family, model_class, fields in CASES:
        logits, gradients = compare(family, model_class, fields)
        print(f"| {name} | {logits:.1e} | {gradients:.1e} |")


def compare(family: str, model_class: str, fields: dict[str, Any]) -> tuple[float, float]:
    """The largest relative difference of the logits, and of the gradients."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**fields)
    config._attn_implementation = "eager"
    theirs = getattr(transformers, model_class)(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            gain = "norm" in name.lower() and name.endswith("weight")
            if "embed_positions" not in name:  # sinusoids
                parameter.normal_(mean=1.0 if gain else 0.0, std=0.2)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours: Any = gg.load_hf(folder).eval()
    source, target = (torch.randint(2, V, (B, T), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    if config.is_encoder_decoder:
        found, expected = ours(source, target), theirs(input_ids=source, decoder_input_ids=target).logits
    else:
        found, expected = ours(source), theirs(source).logits
    for logits in (found, expected):
        logits.square().mean().backward()
    layout = layout_of(ours)
    names = names_in(dict(theirs.named_parameters()), layout, ours.config)
    gradients = []
    for name, parameter in ours.named_parameters():
        try:
            other = theirs.get_parameter(names[name][0]).grad
        except AttributeError:  # a buffer there
            continue
        # A softmax does not see what all its scores have in common: the gradient of these biases is rounding alone.
        if other is not None and not name.endswith(("attn.k.bias", "cross.k.bias")):
            gradients.append(relative(parameter.grad, other.t() if layout.is_transposed(name, other.dim()) else other))
    return relative(found, expected), max(gradients)


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a part of the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


if __name__ == "__main__":
    main()
