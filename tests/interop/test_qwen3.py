"""A modern GPT without n-grams is a Qwen3 in `transformers`, both ways; what has no place there is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import shake, toy_model, toy_modern

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.text import write
from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.interop.layouts import layout_of
from glassgpt.models import Model
from glassgpt.models.modern import Modern, ModernConfig
from glassgpt.tokenizers.bpe import BPETokenizer

transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 3
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
THEIRS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 8,
          "intermediate_size": 64, "max_position_embeddings": 48}  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Modern, Path]:
    """A model and the folder that it went to."""
    model, folder = toy_modern(TOKENIZER.vocab_size), tmp_path_factory.mktemp("export")
    write_hf_folder(folder, model, TOKENIZER, "card")
    return model, folder


@pytest.fixture
def folder(exported: tuple[Modern, Path], tmp_path: Path) -> Path:
    """A copy of the export, to change."""
    for file in exported[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def some_tokens(B: int, T: int) -> torch.Tensor:
    return torch.randint(TOKENIZER.vocab_size, (B, T), generator=torch.Generator().manual_seed(2))


def test_the_logits_are_the_same(exported: tuple[Modern, Path]) -> None:
    model, folder = exported
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(theirs) is transformers.Qwen3ForCausalLM
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(
            theirs.eval()(some_tokens(3, 48)).logits, model(some_tokens(3, 48)), atol=1e-5, rtol=0
        )


def test_the_greedy_text_is_the_same(exported: tuple[Modern, Path]) -> None:
    model, folder = exported
    prompt = "The quick "
    pieces = write(model, TOKENIZER, TOKENIZER.encode(prompt), SamplingConfig(temperature=0.0), 20, torch.Generator())
    writer = transformers.pipeline("text-generation", str(folder))
    assert writer(prompt, max_new_tokens=20, do_sample=False)[0]["generated_text"] == prompt + "".join(pieces)


def test_an_import_gives_it_back_bit_for_bit(exported: tuple[Modern, Path], tmp_path: Path) -> None:
    model, folder = exported
    run = gg.import_hf(folder, run=tmp_path / "run")
    assert run.config.architecture == "modern"
    found, expected = run.model.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    again = gg.export_hf(run, tmp_path / "again")
    for file in folder.iterdir():
        if file.name != "README.md":
            assert (again / file.name).read_bytes() == file.read_bytes(), file.name
    assert "A Qwen3 of" in (again / "README.md").read_text()
    assert "- qwen3" in (again / "README.md").read_text()


def test_config_json_serves_transformers_4_and_5(exported: tuple[Modern, Path]) -> None:
    """Version 5 reads `rope_parameters`; version 4 reads `rope_theta` and `rope_scaling`, and knows no other name."""
    config = json.loads((exported[1] / "config.json").read_text())
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10_000.0}
    assert (config["rope_theta"], config["rope_scaling"]) == (10_000.0, None)
    assert (config["tie_word_embeddings"], config["attention_bias"], config["dtype"]) == (False, False, "float32")


def test_a_model_that_transformers_made_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Qwen3Config(**THEIRS, vocab_size=TOKENIZER.vocab_size)
    theirs = transformers.Qwen3ForCausalLM(config).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    ours = gg.load_hf(tmp_path, dropout=0.1).eval()
    assert ours.config == ModernConfig(TOKENIZER.vocab_size, 48, 2, 3, 24, dropout=0.1, ngram=1)
    with torch.no_grad():
        torch.testing.assert_close(ours(some_tokens(2, 48)), theirs(some_tokens(2, 48)).logits, atol=1e-5, rtol=0)


def test_a_config_of_transformers_4_is_read(folder: Path) -> None:
    change(folder, layer_types=None)
    drop(folder, "rope_parameters")
    assert gg.load_hf(folder)


def change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def drop(folder: Path, field: str) -> None:
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    del saved[field]
    path.write_text(json.dumps(saved))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("num_key_value_heads", 1, r"k_proj\.weight is float32 \(24, 24\), config\.json needs floats \(8, 24\)"),
        ("head_dim", 16, r"o_proj\.weight is float32 \(24, 24\), config\.json needs floats \(24, 48\)"),
        ("hidden_act", "gelu", 'hidden_act is "gelu", but .* has "silu"'),
        ("attention_bias", True, "attention_bias is true, but .* has false"),
        ("use_sliding_window", True, "use_sliding_window is true, but .* has false"),
        ("layer_types", ["full_attention", "sliding_attention"], 'layer_types is .*"sliding_attention"'),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}, 'rope_scaling is .*"yarn".* has null'),
        ("rope_parameters", {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}, 'rope_parameters is .*"linear"'),
        ("rms_norm_eps", "small", 'rms_norm_eps is "small", not a finite number'),
        ("partial_rotary_factor", 0.5, 'partial_rotary_factor is 0.5, and .* "qwen3" has no such setting'),
        ("hidden_size", None, "hidden_size is null, not an integer"),
        ("vocab_size", 301, r"embed_tokens\.weight is float32 \(300, 24\), config\.json needs floats \(301, 24\)"),
    ],
)  # fmt: skip
def test_what_ours_cannot_hold_is_refused_by_name(folder: Path, field: str, value: object, told: str) -> None:
    change(folder, **{field: value})
    with pytest.raises(UserError, match=rf"{folder}.*: .*{told}"):
        gg.load_hf(folder)


def test_a_missing_field_stands_for_the_default_of_the_library(folder: Path) -> None:
    drop(folder, "head_dim")
    with pytest.raises(UserError, match=r"config\.json needs floats \(24, 384\)"):  # three heads of 128
        gg.load_hf(folder)


@pytest.mark.parametrize(
    ("name", "told"),
    [("lm_head.weight", "lacks tensors for the Qwen3 of its config.json: lm_head.weight"),
     ("model.layers.1.self_attn.k_proj.weight", r"lacks tensors .*: model\.layers\.1\.self_attn\.k_proj\.weight")],
)  # fmt: skip
def test_missing_tensors_are_named(folder: Path, name: str, told: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(UserError, match=told):
        gg.load_hf(folder)


def test_a_model_with_ngrams_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    told = r"model\.ngram = 4 cannot be exported.*: train one with settings=\{'model\.ngram': 1\}, .* as Qwen3"
    with pytest.raises(UserError, match=told):
        write_hf_folder(tmp_path, toy_modern(TOKENIZER.vocab_size, ngram=4), TOKENIZER, "card")
    assert not list(tmp_path.iterdir())


def test_rows_beyond_the_tokenizer_are_cut_off(tmp_path: Path) -> None:
    model = toy_modern(TOKENIZER.vocab_size + 12)
    write_hf_folder(tmp_path, model, TOKENIZER, "card")
    found = gg.load_hf(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(found(some_tokens(1, 9)), model(some_tokens(1, 9))[..., : TOKENIZER.vocab_size])


@pytest.mark.parametrize("model", [toy_model(9), toy_modern(9)], ids=["gpt2", "modern"])
def test_the_table_has_every_parameter(model: Model) -> None:
    names = dict(layout_of(model).names(model.config))
    assert names.keys() == dict(model.named_parameters()).keys()
    stored = [name for theirs in names.values() for name in theirs]
    assert len(set(stored)) == len(stored)
