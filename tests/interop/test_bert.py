"""BERT beside `transformers`: the same logits and gradients, both ways, bit for bit; and what is seen inside it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import glassgpt as gg
from glassgpt.costs.flops import count_parameters, estimate_flops_per_token
from glassgpt.costs.memory import count_parameters_by_part
from glassgpt.errors import UserError
from glassgpt.generation.packed import pack
from glassgpt.inspection.capture import capture, capture_names
from glassgpt.inspection.edit import edit
from glassgpt.interop.huggingface import read_config
from glassgpt.interop.huggingface_export import write_hf_folder, write_hf_model
from glassgpt.interop.layouts import layout_of
from glassgpt.models import build_model, is_tied
from glassgpt.models.bert import BERT_SIZES, Bert, BertConfig
from glassgpt.tokenizers.bpe import BPETokenizer

transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 3
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
V, T, C, H, F, L = TOKENIZER.vocab_size, 20, 24, 4, 40, 2
PAD = 0
SIZES = {"vocab_size": V, "hidden_size": C, "num_hidden_layers": L, "num_attention_heads": H, "intermediate_size": F,
         "max_position_embeddings": 32, "pad_token_id": PAD}  # fmt: skip

# google-bert/bert-base-uncased, config.json
BERT_BASE_UNCASED = {
    "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
    "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
    "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0, "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0", "type_vocab_size": 2, "use_cache": True, "vocab_size": 30522,
}  # fmt: skip


def shake(model: nn.Module) -> None:
    """Weights so large, and biases and gains so different, that a mistake in any of them shows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = "norm" in name.lower() and name.endswith("weight")
            parameter.normal_(mean=1.0 if gain else 0.0, std=0.2, generator=generator)


def build_theirs(model_class: str = "BertForMaskedLM", **fields: Any) -> Any:
    theirs = getattr(transformers, model_class)(transformers.BertConfig(**{**SIZES, **fields})).eval()
    shake(theirs)
    return theirs


@pytest.fixture(params=[{}, {"type_vocab_size": 3, "layer_norm_eps": 1e-3}], ids=["usual", "other-settings"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Bert, Path]:
    """Their model, ours, and the folder that it came in."""
    return pair_in(tmp_path, build_theirs(**request.param))


def pair_in(folder: Path, theirs: Any) -> tuple[Any, Bert, Path]:
    theirs.save_pretrained(folder)
    ours = gg.load_hf(folder).eval()
    assert isinstance(ours, Bert)
    return theirs, ours, folder


class Inputs:
    """Three texts of different lengths, padded on the right, left and right; each with two segments."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(2)
        self.tokens = torch.randint(1, V, (3, T), generator=draw)
        self.segments = torch.randint(2, (3, T), generator=draw)
        self.visible = torch.ones(3, T, dtype=torch.bool)
        self.visible[1, 13:] = False
        self.visible[2, :4] = self.visible[2, 17:] = False
        self.tokens[~self.visible] = PAD

    def to_theirs(self, theirs: Any) -> Tensor:
        mask = self.visible.long()
        return theirs(self.tokens, attention_mask=mask, token_type_ids=self.segments).logits

    def to_ours(self, ours: Bert) -> Tensor:
        return ours(self.tokens, visible=self.visible, segments=self.segments)


INPUTS = Inputs()


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def test_logits_are_the_same(pair: tuple[Any, Bert, Path]) -> None:
    theirs, ours, _ = pair
    tokens = INPUTS.tokens
    assert ours.config.n_segment == theirs.config.type_vocab_size
    assert ours.config.norm_eps == theirs.config.layer_norm_eps
    assert relative(ours(tokens), theirs(tokens).logits) < 1e-5
    found, expected = INPUTS.to_ours(ours), INPUTS.to_theirs(theirs)
    assert relative(found[INPUTS.visible], expected[INPUTS.visible]) < 1e-5
    assert relative(ours(tokens, segments=INPUTS.segments), ours(tokens)) > 0.01
    assert relative(ours(tokens, visible=INPUTS.visible)[1:], ours(tokens)[1:]) > 0.01


@pytest.mark.parametrize(("dtype", "logits_within", "gradients_within"),
                         [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-10, 1e-10)])  # fmt: skip
def test_the_gradient_of_every_tensor_is_the_same(
    pair: tuple[Any, Bert, Path], dtype: torch.dtype, logits_within: float, gradients_within: float
) -> None:
    theirs, ours = pair[0].to(dtype), pair[1].to(dtype)
    found, expected = INPUTS.to_ours(ours)[INPUTS.visible], INPUTS.to_theirs(theirs)[INPUTS.visible]
    assert found.dtype == dtype and relative(found, expected) < logits_within
    for logits in (found, expected):
        (logits.log_softmax(dim=-1).diagonal().sum() + logits.square().mean()).backward()
    compared = set()
    for our_name, (name,) in layout_of(ours).names(ours.config):
        mine, other = ours.get_parameter(our_name).grad, theirs.get_parameter(name).grad
        assert mine is not None and other is not None
        if our_name.endswith("attn.k.bias"):
            # A softmax does not see what all its scores have in common, so this gradient is 0 but for rounding.
            scale = ours.get_parameter(our_name.replace("attn.k", "attn.q")).grad
            assert mine.abs().max() < 1e-5 * scale.abs().max() and other.abs().max() < 1e-5 * scale.abs().max()
        else:
            assert relative(mine, other) < gradients_within, our_name
        compared.add(our_name)
    assert compared == set(dict(ours.named_parameters()))
    assert count_parameters(ours) == count_parameters(theirs)


def test_only_the_lookups_of_padding_get_no_gradient_in_transformers(pair: tuple[Any, Bert, Path]) -> None:
    """`padding_idx` leaves out the gradient of one row from its lookups; its part as a row of the head stays."""
    theirs, ours, _ = pair
    tokens = INPUTS.tokens.clone()
    tokens[0, 3] = PAD  # here it is an ordinary token, that all others see
    ours(tokens).square().mean().backward()
    theirs(tokens).logits.square().mean().backward()
    mine, other = ours.token_embedding.weight.grad, theirs.get_input_embeddings().weight.grad
    assert mine is not None and relative(mine[1:], other[1:]) < 1e-4
    assert relative(mine[PAD], other[PAD]) > 1e-3
    ours.zero_grad()
    ours.head(ours.features(tokens).detach()).square().mean().backward()
    assert mine is not None and relative(ours.token_embedding.weight.grad[PAD], other[PAD]) < 1e-4


@torch.no_grad()
def test_what_is_not_visible_reaches_nothing(pair: tuple[Any, Bert, Path]) -> None:
    ours = pair[1]
    tokens = torch.where(INPUTS.visible, INPUTS.tokens, 7)
    found = ours(tokens, visible=INPUTS.visible, segments=INPUTS.segments)
    assert torch.equal(found[INPUTS.visible], INPUTS.to_ours(ours)[INPUTS.visible])
    # A row that is padded on the right has the logits that it has alone.
    alone = ours(INPUTS.tokens[1:2, :13], segments=INPUTS.segments[1:2, :13])
    assert relative(found[1:2, :13], alone) < 1e-5


def test_a_round_trip_keeps_every_bit(pair: tuple[Any, Bert, Path], tmp_path: Path) -> None:
    theirs, ours, _ = pair
    for out, write in ((tmp_path / "whole", lambda out: write_hf_folder(out, ours, TOKENIZER, "card")),
                       (tmp_path / "weights", lambda out: write_hf_model(out, ours))):  # fmt: skip
        out.mkdir()
        write(out)
        again, report = transformers.AutoModelForMaskedLM.from_pretrained(out, output_loading_info=True)
        assert type(again) is transformers.BertForMaskedLM
        assert not report["missing_keys"] and not report["unexpected_keys"]
        expected, found = theirs.state_dict(), again.state_dict()
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name
        with torch.no_grad():
            assert torch.equal(INPUTS.to_theirs(again.eval()), INPUTS.to_theirs(theirs))
        loaded = gg.load_hf(out)
        assert loaded.config == ours.config
        assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in loaded.state_dict().items())
        # Their default would be 0, and keep the first id from being trained.
        assert again.get_input_embeddings().padding_idx is None
        assert not (out / "generation_config.json").exists()


def test_padding_keeps_its_id(tmp_path: Path) -> None:
    tokenizer = BPETokenizer.train(TEXT, 300, ["[PAD]", "<|endoftext|>"])
    model = Bert(BertConfig(tokenizer.vocab_size, 8, 1, 2, 8))
    write_hf_folder(tmp_path, model, tokenizer, "card")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["pad_token_id"] == tokenizer.special_tokens["[PAD]"]
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert theirs.get_input_embeddings().padding_idx == saved["pad_token_id"]


@torch.no_grad()
def test_rows_without_an_id_are_cut_off(tmp_path: Path) -> None:
    model = Bert(BertConfig(V + 5, 32, 1, 2, 8)).eval()
    shake(model)
    write_hf_folder(tmp_path, model, TOKENIZER, "card")
    torch.testing.assert_close(gg.load_hf(tmp_path).eval()(INPUTS.tokens), model(INPUTS.tokens)[..., :V])


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone().contiguous() for name, tensor in change(load_file(file)).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def old_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the published files of bert-base-uncased have them."""
    pairs = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    named = {}
    for name, tensor in tensors.items():
        end = next((end for end in pairs if name.endswith(end)), "")
        named[name.removesuffix(end) + pairs.get(end, "")] = tensor
    assert sum(name.endswith((".gamma", ".beta")) for name in named) == 2 * (2 * L + 2)
    return named


def with_copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
    }


def with_positions(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"bert.embeddings.position_ids": torch.arange(32)[None]}


@pytest.mark.parametrize(
    "change",
    [lambda tensors: tensors, old_names, with_copies, with_positions,
     lambda tensors: old_names(with_copies(with_positions(tensors)))],
    ids=["as it is", "gamma and beta", "tied tensors twice", "position ids", "all of them"],
)  # fmt: skip
@torch.no_grad()
def test_a_checkpoint_of_both_pretraining_tasks_is_read(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], tmp_path: Path
) -> None:
    theirs = build_theirs("BertForPreTraining")
    theirs.save_pretrained(tmp_path)
    assert {"bert.pooler.dense.weight", "cls.seq_relationship.bias"} <= load_file(tmp_path / "model.safetensors").keys()
    rewrite(tmp_path, change)
    ours = gg.load_hf(tmp_path).eval()
    expected = theirs(INPUTS.tokens, attention_mask=INPUTS.visible.long(), token_type_ids=INPUTS.segments)
    assert relative(INPUTS.to_ours(ours)[INPUTS.visible], expected.prediction_logits[INPUTS.visible]) < 1e-5


def other_matrix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"] + 1}


def other_bias(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"cls.predictions.decoder.bias": tensors["cls.predictions.bias"] + 1}


def both_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"bert.embeddings.LayerNorm.gamma": tensors["bert.embeddings.LayerNorm.weight"] + 1}


def without_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if not name.startswith("cls.")}


def another(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"bert.encoder.layer.0.crossattention.self.key.bias": torch.zeros(C)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_matrix, r"decoder\.weight differs from bert\.embeddings\.word_embeddings\.weight, but in BERT"),
        (other_bias, r"cls\.predictions\.decoder\.bias differs from cls\.predictions\.bias"),
        (both_names, r"has surplus tensors .*bert\.embeddings\.LayerNorm\.gamma"),
        (without_head, r"lacks tensors .*cls\.predictions\.bias.* and 2 more"),
        (another, r"has surplus tensors .*crossattention"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], told: str, tmp_path: Path
) -> None:
    build_theirs().save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(UserError, match=told):
        gg.load_hf(tmp_path)


def test_the_published_config_has_the_published_number_of_parameters(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BERT_BASE_UNCASED))
    layout, config = read_config(tmp_path / "config.json", 0.0)
    with torch.device("meta"):
        ours = build_model(layout.architecture, config)
        theirs = transformers.BertForMaskedLM(transformers.BertConfig(**BERT_BASE_UNCASED))
    assert count_parameters(ours) == count_parameters(theirs) == 109_514_298
    assert (config.hidden, config.n_segment) == (3072, 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "parameters"), [("bert-base", 109_514_298), ("bert-large", 335_174_458)])
def test_sizes_of_the_paper(name: str, parameters: int) -> None:
    config = BERT_SIZES[name]
    with torch.device("meta"):
        ours = Bert(config)
        theirs = transformers.BertForMaskedLM(
            transformers.BertConfig(
                hidden_size=config.n_embd, num_hidden_layers=config.n_layer, num_attention_heads=config.n_head,
                intermediate_size=config.hidden,
            )
        )  # fmt: skip
    assert count_parameters(ours) == count_parameters(theirs) == parameters


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("hidden_act", "gelu_new", 'hidden_act is "gelu_new", but the architecture "bert" has "gelu"'),
        ("hidden_act", "relu", 'hidden_act is "relu"'),
        ("position_embedding_type", "relative_key", 'position_embedding_type is "relative_key", but'),
        ("is_decoder", True, "is_decoder is true, but"),
        ("add_cross_attention", True, "add_cross_attention is true, but"),
        ("tie_word_embeddings", False, "tie_word_embeddings is false, but"),
        ("hidden_size", 770, "n_embd = 770 is not divisible by model.n_head = 12"),
        ("type_vocab_size", 0, "model.n_segment = 0 is out of range"),
        ("type_vocab_size", "2", 'type_vocab_size is "2", not an integer'),
        ("intermediate_size", -1, "model.n_hidden = -1 is out of range"),
        ("layer_norm_eps", 0.0, "model.norm_eps = 0.0 is out of range"),
        ("max_position_embeddings", None, "max_position_embeddings is null, not an integer"),
        ("embedding_size", 128, 'embedding_size is 128, and the architecture "bert" has no such setting'),
    ],
)
def test_other_settings_are_refused_by_name(name: str, value: object, told: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(BERT_BASE_UNCASED | {name: value}))
    with pytest.raises(UserError, match=told):
        read_config(path, 0.0)


def test_settings_that_change_no_logit_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    others = {"directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12,
              "pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
              "classifier_dropout": 0.2}  # fmt: skip
    path.write_text(json.dumps(BERT_BASE_UNCASED | others))
    assert read_config(path, 0.1)[1] == BertConfig(n_hidden=3072, dropout=0.1)
    path.write_text('{"model_type": "bert"}')  # what is left out has their default
    assert read_config(path, 0.0)[1] == BertConfig(n_hidden=3072)


def toy(**fields: Any) -> Bert:
    model = Bert(BertConfig(50, 16, 3, 4, 16, **fields)).eval()
    shake(model)
    return model


@torch.no_grad()
def test_a_copy_is_tied_to_itself() -> None:
    model, tokens = toy(), torch.tensor([[1, 2]])
    before, twin = model(tokens), copy.deepcopy(model)
    twin.token_embedding.weight.zero_()
    assert torch.equal(twin(tokens), twin.head.bias.expand(1, 2, -1))
    assert torch.equal(model(tokens), before) and before.std() > 0.1
    assert "head.tied.weight" not in model.state_dict() and len(list(model.head.parameters())) == 5


def test_the_rest_of_the_package_knows_what_is_tied() -> None:
    model = toy()
    assert is_tied(model)
    assert "rest" not in count_parameters_by_part(model)
    lookups = 16 * 16 + 2 * 16
    assert estimate_flops_per_token(model) == 6 * (count_parameters(model) - lookups) + 12 * 3 * 16 * 16


@torch.no_grad()
def test_packed_weights_leave_the_head_as_it_is() -> None:
    model, tokens = toy(), torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))
    packed: Any = pack(model)
    torch.testing.assert_close(packed(tokens), model(tokens), atol=1e-4, rtol=1e-4)
    assert not hasattr(packed, "packed_head")
    assert packed.head.tied.weight is packed.token_embedding.weight is model.token_embedding.weight
    assert type(packed.blocks[0].attn.q) is not nn.Linear and type(packed.head.dense) is not nn.Linear


def test_initial_weights_are_those_of_the_released_code() -> None:
    torch.manual_seed(0)
    model = Bert(BertConfig(1000, 64, 2, 2, 64))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            assert 0.03 < parameter.abs().max() <= 0.04, name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            assert (parameter == 1).all(), name
    assert model.token_embedding.weight.std().item() == pytest.approx(0.02 * 0.88, rel=0.01)  # as it is cut off


@torch.no_grad()
def test_dropout_acts_where_it_does_in_transformers(tmp_path: Path) -> None:
    """All draws are of the same shapes in the same order, so one seed drops the same activations."""
    theirs = build_theirs(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3).train()
    theirs.save_pretrained(tmp_path)
    ours = gg.load_hf(tmp_path, dropout=0.3).train()
    logits = []
    for model in (theirs, ours):
        torch.manual_seed(3)
        logits.append(INPUTS.to_theirs(model) if model is theirs else INPUTS.to_ours(ours))
    assert relative(logits[1][INPUTS.visible], logits[0][INPUTS.visible]) < 1e-5
    assert relative(INPUTS.to_ours(ours), logits[1]) > 0.01  # the next draws are others


# -- what is seen inside --


@torch.no_grad()
def test_activations_have_their_names_and_meanings() -> None:
    model, tokens = toy(n_hidden=24), torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))
    logits, seen = capture(model, tokens)
    torch.testing.assert_close(logits, model(tokens), atol=1e-4, rtol=1e-4)
    steps = ["attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.out", "attn.result"]
    names = [*steps, "resid_mid", "mlp.hidden", "mlp.out", "resid"]
    assert capture_names(model) == ["embed", *(f"blocks.{n}.{name}" for n in range(3) for name in names), "final"]
    stream = seen["embed"]
    for n, block in enumerate(model.blocks):
        q, k, v, scores, pattern, out, result = (seen[f"blocks.{n}.{step}"] for step in steps)
        assert q.shape == k.shape == v.shape == out.shape == (2, 4, 9, 4)
        torch.testing.assert_close(q.transpose(1, 2).flatten(2), block.attn.q(stream))
        torch.testing.assert_close(scores, q @ k.mT / 2)
        torch.testing.assert_close(pattern.sum(dim=-1), torch.ones(2, 4, 9))
        assert (pattern > 0).all()  # to both sides
        assert (pattern.triu(1).sum(-1)[..., :-1] > 1e-3).any() and (pattern.tril(-1).sum(-1)[..., 1:] > 1e-3).any()
        torch.testing.assert_close(out, pattern @ v)
        mid = block.norm1(stream + result.sum(dim=1) + block.attn.proj.bias)
        torch.testing.assert_close(seen[f"blocks.{n}.resid_mid"], mid, atol=1e-5, rtol=1e-5)
        hidden = torch.nn.functional.gelu(block.mlp.up(mid))
        torch.testing.assert_close(seen[f"blocks.{n}.mlp.hidden"], hidden, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(seen[f"blocks.{n}.mlp.out"], block.mlp.down(hidden), atol=1e-5, rtol=1e-4)
        stream = block.norm2(mid + seen[f"blocks.{n}.mlp.out"])
        torch.testing.assert_close(seen[f"blocks.{n}.resid"], stream, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen["final"], seen["blocks.2.resid"])
    torch.testing.assert_close(model.head(seen["final"]), logits)


@torch.no_grad()
def test_the_stream_and_the_patterns_are_those_of_transformers(pair: tuple[Any, Bert, Path]) -> None:
    theirs, ours, _ = pair
    theirs.set_attn_implementation("eager")
    output = theirs(INPUTS.tokens, output_hidden_states=True, output_attentions=True)
    _, seen = capture(ours, INPUTS.tokens)
    stream = [seen["embed"], *(seen[f"blocks.{n}.resid"] for n in range(L))]
    torch.testing.assert_close(stream, list(output.hidden_states), atol=1e-5, rtol=1e-5)
    patterns = [seen[f"blocks.{n}.attn.pattern"] for n in range(L)]
    torch.testing.assert_close(patterns, list(output.attentions), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_change_of_the_stream_before_the_mlp_reaches_all_that_read_it() -> None:
    model, tokens = toy(), torch.tensor([[1, 2, 3, 4]])
    shift = torch.randn(16, generator=torch.Generator().manual_seed(1))
    _, before = capture(model, tokens, ["blocks.1.resid_mid"])
    changed = before["blocks.1.resid_mid"] + shift
    with edit(model, replace={"blocks.1.resid_mid": lambda stream: stream + shift}):
        _, seen = capture(model, tokens, ["blocks.1.resid"])
    block = model.blocks[1]
    torch.testing.assert_close(seen["blocks.1.resid"], block.norm2(changed + block.mlp(changed)))


def test_it_is_not_trained_to_predict_the_token_that_it_sees(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the stage 'pretrain' trains a model of the kind 'decoder', and 'bert' is of"):
        gg.train("char-tiny", text=TEXT, run=tmp_path / "run", settings={"model.architecture": "bert"})
    assert not (tmp_path / "run").exists()
