"""Exports a GPT-2 to a folder that `transformers` loads without GlassGPT; the inverse of huggingface.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.files import write_text
from glassgpt.interop.huggingface import SIZES, names
from glassgpt.interop.tokenizer_export import special_tokens_map, tokenizer_config, tokenizer_json
from glassgpt.interop.tokenizer_import import OUR_TOKENIZER
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.training.tensor_files import write_tensors


def write_hf_folder(folder: Path, model: Model, tokenizer: Tokenizer, card: str) -> None:
    """Writes weights, configs, tokenizer and model card to an existing folder.

    Embedding rows beyond the tokenizer's ids, such as padding, are cut off. Our own tokenizer file is included, so that
    an import restores it exactly. Raises UserError for a model or tokenizer that cannot be exported exactly.
    """
    if not isinstance(model, GPT2):
        raise UserError("only the gpt2 architecture can be exported: transformers has no equivalent of the others")
    texts = {
        "config.json": hf_config(model.config, tokenizer),
        "generation_config.json": generation_config(model.config, tokenizer),
        "tokenizer.json": tokenizer_json(tokenizer),
        "tokenizer_config.json": tokenizer_config(tokenizer, model.config.block_size),
        "special_tokens_map.json": special_tokens_map(tokenizer),
    }
    for name, content in texts.items():
        write_text(folder / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    tokenizer.save(folder / OUR_TOKENIZER)
    write_text(folder / "README.md", card)
    path = folder / "model.safetensors"
    try:
        write_tensors(path, hf_tensors(model, tokenizer.vocab_size), {"format": "pt"})
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot write {path}: {error}") from None


def hf_tensors(model: GPT2, vocab_size: int) -> dict[str, Tensor]:
    """The weights with the names and layout of `GPT2LMHeadModel`. The tied head is not written twice."""
    state = model.state_dict()
    tensors = {}
    for theirs, ours in names(model.config.n_layer):
        tensor = state[ours].detach().cpu()
        if ours == "token_embedding.weight":
            tensor = tensor[:vocab_size]
        if ours.startswith("blocks.") and tensor.dim() == 2:  # Conv1D stores matrices as (in, out)
            tensor = tensor.t()
        tensors[f"transformer.{theirs}"] = tensor.contiguous()
    return tensors


def hf_config(config: GPT2Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of config.json."""
    sizes = {theirs: getattr(config, ours) for ours, theirs in SIZES.items()}
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **sizes,
        "vocab_size": tokenizer.vocab_size,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "initializer_range": 0.02,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": "float32",
        **_special_ids(tokenizer),
    }


def generation_config(config: GPT2Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of generation_config.json: a text ends at end-of-text, or at the maximum length."""
    ids = _special_ids(tokenizer)
    return {**ids, "pad_token_id": ids["eos_token_id"], "max_length": config.block_size}


def _special_ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    # Written even if there is no such token: a config.json without these fields means the ids of the published GPT-2.
    end = tokenizer.special_tokens.get(END_OF_TEXT)
    bos = end if tokenizer.bos_token is None else tokenizer.special_tokens[tokenizer.bos_token]
    return {"bos_token_id": bos, "eos_token_id": end}
