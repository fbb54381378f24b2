"""Exports a model to a folder that `transformers` loads without GlassGPT; the inverse of huggingface.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from glassgpt.data.pairs import Ends
from glassgpt.errors import UserError
from glassgpt.files import write_text
from glassgpt.interop.layout import Layout
from glassgpt.interop.layouts import layout_of
from glassgpt.interop.tokenizer_export import special_tokens_map, tokenizer_config, tokenizer_json
from glassgpt.interop.tokenizer_import import OUR_TOKENIZER
from glassgpt.models import EncoderDecoderModel, Model, ModelConfig, find_architecture
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.training.tensor_files import write_tensors

ROWS_PER_ID = ("token_embedding.weight", "head.weight", "head.bias", "head_bias")
PADDING = "[PAD]"  # BERT's name of it


def write_hf_folder(folder: Path, model: Model | EncoderDecoderModel, tokenizer: Tokenizer, card: str) -> None:
    """Writes weights, configs, tokenizer and model card to an existing folder. The weights keep their dtypes.

    Embedding rows beyond the tokenizer's ids, such as padding, are cut off. Our own tokenizer file is included, so that
    an import restores it exactly. Raises UserError for a model or tokenizer that cannot be exported exactly.
    """
    layout = layout_of(model)
    kind = find_architecture(layout.architecture).kind
    texts = {
        "tokenizer.json": tokenizer_json(tokenizer, kind),
        "tokenizer_config.json": tokenizer_config(tokenizer, model.config.block_size, kind),
        "special_tokens_map.json": special_tokens_map(tokenizer, kind),
    }
    if layout.generates:
        texts["generation_config.json"] = generation_config(layout, model.config, tokenizer)
    for name, content in texts.items():
        _write_json(folder / name, content)
    tokenizer.save(folder / OUR_TOKENIZER)
    write_text(folder / "README.md", card)
    write_hf_model(folder, model, tokenizer)


def write_hf_model(folder: Path, model: Model | EncoderDecoderModel, tokenizer: Tokenizer | None = None) -> None:
    """Writes config.json and the weights to an existing folder. Without a tokenizer, no id has a special meaning.

    Raises UserError for a model that cannot be exported exactly.
    """
    dtypes = {parameter.dtype for parameter in model.parameters()}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    _write_json(folder / "config.json", hf_config(layout_of(model), model.config, tokenizer, dtype))
    vocab_size = model.config.vocab_size if tokenizer is None else tokenizer.vocab_size
    path = folder / "model.safetensors"
    try:
        write_tensors(path, hf_tensors(model, vocab_size), {"format": "pt"})
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot write {path}: {error}") from None


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def hf_tensors(model: Model | EncoderDecoderModel, vocab_size: int) -> dict[str, Tensor]:
    """The weights with the names and layout of the class in `transformers`. A tied head is not written twice."""
    layout, state = layout_of(model), model.state_dict()
    tensors: dict[str, Tensor] = {}
    for ours, theirs in layout.names(model.config):
        tensor = state[ours].detach().cpu()
        if ours in ROWS_PER_ID:
            tensor = tensor[:vocab_size]
        if ours in layout.rows:
            tensor = tensor[None]
        if layout.is_transposed(ours, tensor.dim()):
            tensor = tensor.t()
        tensors |= {name: part.contiguous() for name, part in zip(theirs, tensor.chunk(len(theirs)), strict=True)}
    return tensors


def hf_config(
    layout: Layout, config: ModelConfig, tokenizer: Tokenizer | None, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """The contents of config.json. `dtype` is the one in which the library loads the weights."""
    return {
        "architectures": [layout.model_class],
        "model_type": layout.model_type,
        **{theirs: getattr(config, ours) for ours, theirs in layout.sizes.items()},
        "vocab_size": config.vocab_size if tokenizer is None else tokenizer.vocab_size,
        **{name: option.value for name, option in layout.options(config).items()},
        **dict.fromkeys(layout.dropouts, config.dropout),
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": str(dtype).removeprefix("torch."),
        **_special_ids(layout, tokenizer),
    }


def generation_config(layout: Layout, config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of generation_config.json: a text ends at end-of-text, or at the maximum length."""
    ids = _special_ids(layout, tokenizer)
    return {"pad_token_id": ids["eos_token_id"], **ids, "max_length": config.block_size}


def _special_ids(layout: Layout, tokenizer: Tokenizer | None) -> dict[str, int | None]:
    # Written even if there is no such token: a config.json without these fields means the ids of the published GPT-2,
    # or for an encoder that id 0 is padding, whose embedding is not trained.
    if not layout.generates:
        return {"pad_token_id": None if tokenizer is None else tokenizer.special_tokens.get(PADDING)}
    if tokenizer is None:
        return {"bos_token_id": None, "eos_token_id": None}
    if find_architecture(layout.architecture).kind == "encoder-decoder":
        ends = Ends.of(tokenizer)
        starts = {"decoder_start_token_id": ends.start_id, "pad_token_id": ends.start_id}
        return {"bos_token_id": None, "eos_token_id": ends.stop_id, **starts, "forced_eos_token_id": None}
    end = tokenizer.special_tokens.get(END_OF_TEXT)
    bos = end if tokenizer.bos_token is None else tokenizer.special_tokens[tokenizer.bos_token]
    return {"bos_token_id": bos, "eos_token_id": end}
