"""Every field of a config.json with odd values: refused in one short sentence, or of no importance; never a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from glassgpt.errors import UserError
from glassgpt.interop.huggingface import open_hf
from glassgpt.interop.huggingface_export import hf_config, hf_tensors
from glassgpt.interop.layout import HARMLESS, Layout
from glassgpt.interop.layouts import LAYOUTS, layout_of
from glassgpt.models import ModelConfig, find_architecture
from glassgpt.models.bert import BertConfig
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.models.gpt_oss import GPTOssConfig
from glassgpt.models.llama import LlamaConfig
from glassgpt.models.qwen3 import Qwen3Config
from glassgpt.models.t5 import T5Config
from glassgpt.models.transformer import TransformerConfig

SIZES = {"vocab_size": 40, "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 8}
CONFIGS: dict[str, ModelConfig] = {
    "gpt2": GPT2Config(**SIZES),
    "llama": LlamaConfig(**SIZES, n_hidden=12, rope_factor=4.0),
    "qwen3": Qwen3Config(**SIZES, n_hidden=12, head_size=6),
    "gpt_oss": GPTOssConfig(**SIZES, n_kv_head=2, head_size=4, n_hidden=12, n_expert=3, n_active=2),
    "bert": BertConfig(**SIZES),
    "transformer": TransformerConfig(**SIZES),
    "t5": T5Config(**SIZES, head_size=4, n_hidden=12),
}
NO_VALUE = (float("nan"), float("inf"), -float("inf"), "x" * 5000, [1], {"a": 1})
ODD = (*NO_VALUE, None, "8", -1, 0, 2.5, True, False, 10**9, 10**30, [], {})


def written(folder: Path, name: str) -> tuple[Layout, dict[str, Any]]:
    """A small model's files; returns its layout and the contents of its config.json."""
    config = CONFIGS[name]
    model = find_architecture(name).model(config)
    save_file(hf_tensors(model, config.vocab_size), folder / "model.safetensors")
    return layout_of(model), hf_config(layout_of(model), config, None)


@pytest.mark.parametrize("name", CONFIGS)
def test_odd_values_are_refused_or_change_nothing(name: str, tmp_path: Path) -> None:
    layout, good = written(tmp_path, name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(good))
    open_hf(tmp_path)
    unimportant = {*HARMLESS, *layout.harmless, *layout.dropouts} - {"model_type"}
    ropes = [("rope_parameters", field) for field in good.get("rope_parameters") or ()]
    for field, inside in [*((field, None) for field in good), *ropes]:
        for odd in ODD:
            value = odd if inside is None else good[field] | {inside: odd}
            path.write_text(json.dumps(good | {field: value}))
            try:
                open_hf(tmp_path)
            except UserError as error:
                assert len(str(error)) < 1200 and "\n" not in str(error), (field, inside)
            else:
                assert field in unimportant or all(odd is not none for none in NO_VALUE), (field, inside, odd)


@pytest.mark.parametrize(
    ("name", "field", "value", "told"),
    [
        ("bert", "type_vocab_size", None, "type_vocab_size is missing or null"),
        ("bert", "layer_norm_eps", float("nan"), "layer_norm_eps is NaN, not a finite number"),
        ("llama", "rms_norm_eps", float("inf"), "rms_norm_eps is Infinity, not a finite number"),
        ("llama", "num_hidden_layers", True, "num_hidden_layers is true, not an integer"),
        ("llama", "hidden_size", 10**30, r"model\.n_embd = .* is out of range"),
        ("llama", "vocab_size", -1, r"model\.vocab_size = -1 is out of range"),
        ("qwen3", "max_position_embeddings", "8", 'max_position_embeddings is "8", not an integer'),
        ("llama", "dtype", "float99", 'dtype is "float99", and weights can be in one of float32, bfloat16'),
        ("t5", "torch_dtype", [1], r"torch_dtype is \[1\], and weights"),
        ("t5", "relative_attention_num_buckets", None, "relative_attention_num_buckets is missing or null"),
        ("gpt_oss", "sliding_window", 10**30, r"model\.band_width = .* is out of range"),
        ("gpt_oss", "swiglu_limit", "x" * 5000, 'swiglu_limit is "x{299}…, but'),
        ("gpt2", "model_type", "mamba", 'model_type is "mamba", only .*"gpt2".* can be loaded'),
        ("gpt2", "model_type", None, "model_type is null, only"),
        ("llama", "alibi", True, 'alibi is true, and the architecture "llama" has no such setting'),
        ("llama", "auto_map", {"AutoModel": "modeling_x.X"}, r"config\.json asks for code .* \(auto_map\)"),
        ("llama", "quantization_config", {"quant_method": "fp8"}, "quantization_config is .*fp8.* has no such setting"),
    ],
)  # fmt: skip
def test_they_are_refused_by_name(name: str, field: str, value: object, told: str, tmp_path: Path) -> None:
    _, good = written(tmp_path, name)
    (tmp_path / "config.json").write_text(json.dumps(good | {field: value}))
    with pytest.raises(UserError, match=told):
        open_hf(tmp_path)


def test_every_published_architecture_is_among_them() -> None:
    assert {layout.architecture for layout in LAYOUTS} - {"modern"} == CONFIGS.keys()
