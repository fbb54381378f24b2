"""The architectures that people download, beside `transformers`: the same logits and gradients, both ways, bit for bit.

Every tensor is perturbed, since ones and zeros hide mistakes. Published sizes are counted without their weights.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import shake
from versions import rope_fields

import glassgpt as gg
from glassgpt.costs.flops import count_parameters
from glassgpt.errors import UserError
from glassgpt.interop.huggingface import read_config
from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.models import Model, build_model
from glassgpt.models.context import KVCache
from glassgpt.models.llama import LlamaConfig
from glassgpt.tokenizers.bpe import BPETokenizer

transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 3
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
V = TOKENIZER.vocab_size
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16, "rope_theta": 500.0}  # fmt: skip
SIZES = {"vocab_size": V, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
         "max_position_embeddings": 48}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A class of transformers, and the fields of its config beside the sizes."""

    family: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        torch.manual_seed(0)
        fields = {**SIZES, **self.fields}
        if "rope_parameters" in fields:
            fields |= rope_fields(fields.pop("rope_parameters"))
        config = getattr(transformers, f"{self.family}Config")(**fields)
        theirs = getattr(transformers, f"{self.family}ForCausalLM")(config).eval()
        shake(theirs)
        return theirs


CASES = {
    "llama": Case("Llama"),
    "llama-grouped": Case("Llama", {"num_key_value_heads": 2, "rms_norm_eps": 1e-5}),
    "llama-3.2": Case("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama-wide-heads": Case("Llama", {"num_key_value_heads": 2, "head_dim": 10}),
    "qwen3": Case("Qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
    "qwen3-tied": Case("Qwen3", {"num_key_value_heads": 4, "head_dim": 6, "tie_word_embeddings": True}),
}


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Model, Path]:
    """Their model, ours, and the folder that it came in."""
    theirs = CASES[request.param].build()
    theirs.save_pretrained(tmp_path)
    return theirs, gg.load_hf(tmp_path).eval(), tmp_path


def some_tokens(B: int, T: int) -> torch.Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(2))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_logits_and_gradients_are_the_same(pair: tuple[Any, Model, Path]) -> None:
    theirs, ours, _ = pair
    tokens = some_tokens(3, 48)
    assert relative(ours(tokens), theirs(tokens).logits) < 1e-5
    for model in (ours, theirs):
        logits = model(tokens) if model is ours else model(tokens).logits
        logits.float().square().mean().backward()
    (mine,) = (ours.get_parameter("token_embedding.weight"),)
    (other,) = (theirs.get_parameter("model.embed_tokens.weight"),)
    assert mine.grad is not None and relative(mine.grad, other.grad) < 1e-4
    totals = [sum(float(p.grad.square().sum()) for p in model.parameters()) for model in (ours, theirs)]
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)
    assert count_parameters(ours) == count_parameters(theirs)


@torch.no_grad()
def test_float64_logits_are_the_same(pair: tuple[Any, Model, Path]) -> None:
    theirs, ours, _ = (copy.deepcopy(each).double() if isinstance(each, torch.nn.Module) else each for each in pair)
    tokens = some_tokens(2, 20)
    # transformers keeps its norms and rotations in float32.
    assert relative(ours(tokens), theirs(tokens).logits) < 1e-6


@torch.no_grad()
def test_cached_logits_are_those_of_one_pass(pair: tuple[Any, Model, Path]) -> None:
    ours, tokens = pair[1], some_tokens(2, 48)
    cache, parts = KVCache(48), []
    for start, end in ((0, 7), (7, 8), (8, 21), (21, 47), (47, 48)):
        parts.append(ours(tokens[:, start:end], context=cache))
    assert relative(torch.cat(parts, dim=1), ours(tokens)) < 1e-5


def test_a_round_trip_keeps_every_bit(pair: tuple[Any, Model, Path], tmp_path: Path) -> None:
    theirs, ours, _ = pair
    out = tmp_path / "out"
    out.mkdir()
    write_hf_folder(out, ours, TOKENIZER, "card")
    again, report = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = dict(theirs.named_parameters())
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    with torch.no_grad():
        assert torch.equal(again.eval()(some_tokens(1, 9)).logits, theirs(some_tokens(1, 9)).logits)
    assert gg.load_hf(out).config == ours.config


@torch.no_grad()
def test_a_copy_of_a_tied_model_is_tied_to_itself() -> None:
    model = build_model("llama", LlamaConfig(50, 16, 1, 2, 16, tied=True))
    twin = copy.deepcopy(model)
    twin.get_parameter("token_embedding.weight").zero_()
    assert not twin(torch.tensor([[1]])).any() and model(torch.tensor([[1]])).any()


PUBLISHED = {
    # meta-llama/Llama-3.2-1B, config.json and the number of parameters on its page
    "llama-3.2-1b": (
        {"model_type": "llama", "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
         "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
         "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False, "num_attention_heads": 32,
         "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
         "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3"},
         "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
         "vocab_size": 128256},
        1_235_814_400,
    ),
    # Qwen/Qwen3-0.6B; its file has the tied head twice, 751,632,384 in all
    "qwen3-0.6b": (
        {"model_type": "qwen3", "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643,
         "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
         "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
         "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
         "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
         "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False, "vocab_size": 151936},
        751_632_384 - 151936 * 1024,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_number_of_parameters(name: str, tmp_path: Path) -> None:
    saved, parameters = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    layout, config = read_config(tmp_path / "config.json", 0.0)
    with torch.device("meta"):
        assert count_parameters(build_model(layout.architecture, config)) == parameters


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "rope_scaling",
            {"rope_type": "yarn", "factor": 4.0},
            'rope_scaling is .*"yarn".*, but the architecture "llama"',
        ),
        ("mlp_bias", True, "mlp_bias is true, but"),
        ("num_key_value_heads", 3, "n_head = 32 is not divisible by model.n_kv_head = 3"),
        ("num_key_value_heads", "8", 'num_key_value_heads is "8", not an integer'),
        ("rope_theta", 0.5, "model.rope_base = 0.5 is out of range: it must be above 1"),
        ("rope_theta", None, "rope_theta is missing or null"),
        ("sliding_window", 4096, 'sliding_window is 4096, and the architecture "llama" has no such setting'),
    ],
)
def test_other_settings_are_refused_by_name(name: str, value: object, told: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PUBLISHED["llama-3.2-1b"][0] | {name: value}))
    with pytest.raises(UserError, match=told):
        read_config(path, 0.0)
