"""The encoder-decoder beside Marian of `transformers`: the same logits and gradients, both ways, bit for bit.

Every tensor is perturbed, also the bias of the head, since ones and zeros hide mistakes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import shake

import glassgpt as gg
from glassgpt.costs.flops import count_parameters
from glassgpt.data.pairs import Ends
from glassgpt.errors import UserError
from glassgpt.generation.translate import write_target
from glassgpt.interop.huggingface import read_config
from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.interop.layouts import layout_of
from glassgpt.models.context import KVCache
from glassgpt.models.transformer import Transformer, TransformerConfig
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer

transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 3
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
V = TOKENIZER.vocab_size
PAD = V - 1
SIZES = {"vocab_size": V, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 48,
         "pad_token_id": PAD, "decoder_start_token_id": PAD, "eos_token_id": 0, "scale_embedding": True,
         "activation_function": "swish"}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "opus": {},  # as the models of OPUS-MT
    "paper": {"activation_function": "relu"},
    "unscaled": {"scale_embedding": False, "activation_function": "silu"},
    "uneven": {"encoder_layers": 3, "decoder_layers": 1},
}
VISIBLE = torch.arange(48) < torch.tensor([[48], [5], [31]])


def build(fields: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    theirs = transformers.MarianMTModel(transformers.MarianConfig(**SIZES | fields)).eval()
    positions = theirs.model.encoder.embed_positions.weight.clone()
    shake(theirs)
    with torch.no_grad():
        for stack in (theirs.model.encoder, theirs.model.decoder):
            stack.embed_positions.weight.copy_(positions)  # a frozen parameter there, which is no weight
        theirs.final_logits_bias.normal_(std=0.2)
    return theirs


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Transformer, Path]:
    """Their model, ours, and the folder that it came in."""
    theirs = build(CASES[request.param])
    theirs.save_pretrained(tmp_path)
    ours = gg.load_hf(tmp_path).eval()
    assert isinstance(ours, Transformer)
    return theirs, ours, tmp_path


def some_tokens(B: int, T: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def their_logits(theirs: Any, source: torch.Tensor, target: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = theirs(input_ids=source, attention_mask=visible.long(), decoder_input_ids=target).logits
    return logits


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.abs().max() > 0
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_logits_and_every_gradient_are_the_same(pair: tuple[Any, Transformer, Path]) -> None:
    theirs, ours, _ = pair
    source, target = some_tokens(3, 48), some_tokens(3, 30, seed=3)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None  # it keeps the gradient of the padding's row at zero
    theirs.final_logits_bias.requires_grad_(True)  # a buffer there
    pairs = ours(source, target, visible=VISIBLE), their_logits(theirs, source, target, VISIBLE)
    assert relative(*pairs) < 1e-5
    # Weights at random: a plain sum of squares would hide a permutation of rows or positions.
    weight = torch.randn(pairs[0].shape, generator=torch.Generator().manual_seed(4))
    for logits in pairs:
        (logits.log_softmax(-1) * weight).mean().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    expected["final_logits_bias"] = theirs.final_logits_bias.grad
    names = dict(layout_of(ours).names(ours.config))
    assert names.keys() == dict(ours.named_parameters()).keys()
    assert {theirs_name for (theirs_name,) in names.values()} == expected.keys()
    for name, parameter in ours.named_parameters():
        found, other = parameter.grad, expected[names[name][0]]
        assert found is not None and other is not None
        if name.endswith("k.bias"):  # adds the same to all scores of a query: its gradient is zero but for rounding
            assert max(found.abs().max(), other.abs().max()) < 1e-6
        else:
            assert relative(found, other.view_as(found)) < 1e-4, name


@torch.no_grad()
def test_float64_logits_are_the_same(pair: tuple[Any, Transformer, Path]) -> None:
    theirs, ours = pair[0].double(), pair[1].double()
    # transformers stores the sinusoids in float32: here they are in float64 (section 3.5 of the paper).
    angles = np.arange(48)[:, None] / 10_000 ** (np.arange(0, 24, 2) / 24)
    for stack in (theirs.model.encoder, theirs.model.decoder):
        table = torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))
        assert relative(stack.embed_positions.weight, table) < 1e-7
        stack.embed_positions.weight.copy_(table)
    source, target = some_tokens(3, 48), some_tokens(3, 30, seed=3)
    assert relative(ours(source, target, visible=VISIBLE), their_logits(theirs, source, target, VISIBLE)) < 1e-10


@torch.no_grad()
def test_cached_logits_are_those_of_one_pass(pair: tuple[Any, Transformer, Path]) -> None:
    theirs, ours, _ = pair
    source, target = some_tokens(3, 48), some_tokens(3, 48, seed=3)
    memory, cache, parts = ours.encode(source, visible=VISIBLE), KVCache(48), []
    for start, end in ((0, 7), (7, 8), (8, 21), (21, 47), (47, 48)):
        parts.append(ours.features(target[:, start:end], memory, visible=VISIBLE, context=cache))
    assert relative(ours.head(torch.cat(parts, dim=1)), their_logits(theirs, source, target, VISIBLE)) < 1e-5


def test_the_greedy_translation_is_the_same(pair: tuple[Any, Transformer, Path]) -> None:
    theirs, ours, _ = pair
    source, new = some_tokens(3, 48), 20
    their_ids = theirs.generate(
        input_ids=source, attention_mask=VISIBLE.long(), max_new_tokens=new, min_new_tokens=new, do_sample=False,
        forced_eos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    assert write_target(ours, source, PAD, None, new, VISIBLE) == their_ids[:, 1:].tolist()


def test_a_round_trip_keeps_every_bit(pair: tuple[Any, Transformer, Path], tmp_path: Path) -> None:
    theirs, ours, _ = pair
    out = tmp_path / "out"
    out.mkdir()
    write_hf_folder(out, ours, TOKENIZER, "card")
    again, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(out, output_loading_info=True)
    assert type(again) is transformers.MarianMTModel
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = theirs.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    source, target = some_tokens(3, 48), some_tokens(3, 30, seed=3)
    with torch.no_grad():
        same = their_logits(again.eval(), source, target, VISIBLE)
        assert torch.equal(same, their_logits(theirs, source, target, VISIBLE))
    assert gg.load_hf(out).config == ours.config
    end = TOKENIZER.special_tokens["<|endoftext|>"]
    assert (again.config.decoder_start_token_id, again.config.pad_token_id, again.config.eos_token_id) == (end,) * 3
    assert again.generation_config.forced_eos_token_id is None


def test_an_export_needs_a_token_that_starts_a_target(tmp_path: Path) -> None:
    model = Transformer(TransformerConfig(5, 8, 1, 1, 4))
    with pytest.raises(UserError, match="the char tokenizer has no token that ends a target"):
        write_hf_folder(tmp_path, model, CharTokenizer.train("abcde"), "card")


def test_rows_beyond_the_tokenizer_are_cut_off(tmp_path: Path) -> None:
    model = Transformer(TransformerConfig(V + 12, 48, 1, 2, 8)).eval()
    shake(model)
    write_hf_folder(tmp_path, model, TOKENIZER, "card")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    source, target = some_tokens(1, 9), some_tokens(1, 5)
    with torch.no_grad():
        found = their_logits(theirs, source, target, torch.ones(1, 9))
        torch.testing.assert_close(found, model(source, target)[..., :V], atol=1e-5, rtol=1e-5)


def test_an_encoder_decoder_becomes_a_run_and_is_exported_again(tmp_path: Path) -> None:
    model = Transformer(TransformerConfig(V, 16, 1, 1, 4)).eval()
    shake(model)
    write_hf_folder(tmp_path / "out", model, TOKENIZER, "card")
    run = gg.import_hf(tmp_path / "out", run=tmp_path / "run")
    source = TOKENIZER.decode([1, 2, 3])
    ends = Ends.of(TOKENIZER)
    expected = write_target(model, torch.tensor([[1, 2, 3, ends.stop_id]]), ends.start_id, ends.stop_id, 5)
    assert run.write_targets([source], max_new_tokens=5) == [TOKENIZER.decode(expected[0])]
    gg.export_hf(run, tmp_path / "again")
    for name, tensor in gg.load_hf(tmp_path / "again").state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_targets_that_start_with_another_token_are_refused(tmp_path: Path) -> None:
    write_hf_folder(tmp_path, Transformer(TransformerConfig(V, 8, 1, 1, 4)), TOKENIZER, "card")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"decoder_start_token_id": 2}))
    with pytest.raises(UserError, match=r"targets start with the token 2 \(decoder_start_token_id\)"):
        gg.import_hf(tmp_path, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def older(tmp_path: Path) -> tuple[Any, Path]:
    """A model and its folder, which also has what older versions wrote: tied matrices again, and the sinusoids."""
    theirs = build({})
    theirs.save_pretrained(tmp_path)
    more = ("lm_head.weight", *(f"model.{stack}.embed_{what}.weight" for stack in ("encoder", "decoder")
                                for what in ("tokens", "positions")))  # fmt: skip
    change_tensors(tmp_path, {name: theirs.state_dict()[name].clone() for name in more})
    return theirs, tmp_path


def change_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(load_file(folder / "model.safetensors") | tensors, folder / "model.safetensors", {"format": "pt"})


def test_an_older_file_is_read(older: tuple[Any, Path]) -> None:
    theirs, folder = older
    ours, source, target = gg.load_hf(folder).eval(), some_tokens(3, 48), some_tokens(3, 30, seed=3)
    with torch.no_grad():
        assert relative(ours(source, target, visible=VISIBLE), their_logits(theirs, source, target, VISIBLE)) < 1e-5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lm_head.weight", r"lm_head\.weight differs from model\.shared\.weight, but in Marian they are tied"),
        ("model.decoder.embed_tokens.weight", r"differs from model\.shared\.weight, but in Marian they are tied"),
        ("model.encoder.embed_positions.weight", 'is not what the architecture "transformer" computes in its place'),
    ],
)
def test_a_repeated_tensor_that_differs_is_refused(older: tuple[Any, Path], name: str, told: str) -> None:
    tensor = load_file(older[1] / "model.safetensors")[name]
    tensor[3, 5] += 0.01
    change_tensors(older[1], {name: tensor})
    with pytest.raises(UserError, match=told):
        gg.load_hf(older[1])


@pytest.mark.parametrize("shape", [(V,), (1, V + 1)])
def test_a_head_bias_of_another_shape_is_refused(older: tuple[Any, Path], shape: tuple[int, ...]) -> None:
    change_tensors(older[1], {"final_logits_bias": torch.zeros(shape)})
    with pytest.raises(UserError, match=rf"final_logits_bias is float32 .*, config\.json needs floats \(1, {V}\)"):
        gg.load_hf(older[1])


# Helsinki-NLP/opus-mt-en-de, config.json
OPUS = {
    "model_type": "marian", "activation_dropout": 0.0, "activation_function": "swish", "add_bias_logits": False,
    "add_final_layer_norm": False, "architectures": ["MarianMTModel"], "attention_dropout": 0.0,
    "bad_words_ids": [[58100]], "bos_token_id": 0, "classif_dropout": 0.0, "classifier_dropout": 0.0, "d_model": 512,
    "decoder_attention_heads": 8, "decoder_ffn_dim": 2048, "decoder_layerdrop": 0.0, "decoder_layers": 6,
    "decoder_start_token_id": 58100, "decoder_vocab_size": 58101, "dropout": 0.1, "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048, "encoder_layerdrop": 0.0, "encoder_layers": 6, "eos_token_id": 0,
    "forced_eos_token_id": 0, "gradient_checkpointing": False, "init_std": 0.02, "is_encoder_decoder": True,
    "max_length": 512, "max_position_embeddings": 512, "normalize_before": False, "normalize_embedding": False,
    "num_beams": 6, "num_hidden_layers": 6, "pad_token_id": 58100, "scale_embedding": True,
    "share_encoder_decoder_embeddings": True, "static_position_embeddings": True, "transformers_version": "4.22.0",
    "use_cache": True, "vocab_size": 58101,
}  # fmt: skip


def test_a_published_model_has_the_published_size(tmp_path: Path) -> None:
    """The documentation of transformers says "about 298 MB on disk": with two stored tables of positions."""
    (tmp_path / "config.json").write_text(json.dumps(OPUS))
    layout, config = read_config(tmp_path / "config.json", 0.0)
    assert layout.architecture == "transformer"
    with torch.device("meta"):
        ours = Transformer(config)  # type: ignore[arg-type]
        theirs = transformers.MarianMTModel(transformers.MarianConfig(**OPUS))
    assert count_parameters(ours) == 73_886_208 + 58_101  # the bias of the head is a buffer there
    assert sum(p.numel() for p in theirs.parameters() if p.requires_grad) == 73_886_208
    assert round(4 * (count_parameters(ours) + 2 * 512 * 512) / 1e6) == 298


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("activation_function", "gelu", 'activation_function is "gelu", but .* has only "relu", "swish", "silu"'),
        ("encoder_attention_heads", 4, "encoder_attention_heads is 4, but .* has 8"),
        ("encoder_ffn_dim", 1024, "encoder_ffn_dim is 1024, but .* has 2048"),
        ("decoder_vocab_size", 32000, "decoder_vocab_size is 32000, but .* has 58101"),
        ("share_encoder_decoder_embeddings", False, "share_encoder_decoder_embeddings is false, but .* has true"),
        ("tie_word_embeddings", False, "tie_word_embeddings is false, but .* has true"),
        ("normalize_before", True, 'normalize_before is true, and .* "transformer" has no such setting'),
        ("normalize_embedding", True, 'normalize_embedding is true, and .* "transformer" has no such setting'),
        ("add_final_layer_norm", True, 'add_final_layer_norm is true, and .* "transformer" has no such setting'),
        ("encoder_layers", None, "encoder_layers is missing or null"),
        ("encoder_layers", "6", 'encoder_layers is "6", not an integer'),
        ("scale_embedding", 1.5, r"scale_embedding is 1\.5, not true or false"),
        ("d_model", 511, r"n_embd = 511 is not divisible"),
    ],
)
def test_other_settings_are_refused_by_name(name: str, value: object, told: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(OPUS | {name: value}))
    with pytest.raises(UserError, match=told):
        read_config(path, 0.0)


@pytest.mark.parametrize("name", ["activation_function", "encoder_attention_heads", "encoder_ffn_dim"])
def test_a_missing_field_stands_for_the_default_of_the_library(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({field: value for field, value in OPUS.items() if field != name}))
    default = transformers.MarianConfig().to_dict()[name]
    with pytest.raises(UserError, match=f"{name} is {json.dumps(default)}, but"):
        read_config(path, 0.0)
