"""T5 1.0 and 1.1 beside `transformers`: the same logits, gradients and buckets, and the same bits after both ways."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from versions import TRANSFORMERS_4

import glassgpt as gg
from glassgpt.costs.flops import count_parameters
from glassgpt.errors import UserError
from glassgpt.interop.huggingface import read_config
from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.interop.layouts import layout_of
from glassgpt.models import find_architecture, is_tied
from glassgpt.models.context import KVCache
from glassgpt.models.t5 import T5, T5_SIZES, T5Config, buckets
from glassgpt.tokenizers.bpe import BPETokenizer

transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 3
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
V = TOKENIZER.vocab_size
# The heads together are narrower than the stream; the stacks have different depths.
SIZES = {"vocab_size": V, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 3,
         "num_heads": 4, "decoder_start_token_id": 0}  # fmt: skip
CASES = {
    "1.0": {},
    "1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "1.0-other-buckets": {"relative_attention_num_buckets": 12, "relative_attention_max_distance": 40},
}


def build(fields: dict[str, Any]) -> Any:
    """A model of transformers, every tensor of which matters."""
    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**SIZES, **fields)).eval()
    if fields.get("tie_word_embeddings") is False:  # transformers 5 ties it nevertheless
        theirs.lm_head.weight = torch.nn.Parameter(torch.empty_like(theirs.shared.weight))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            gain, bias = "norm" in name, "relative_attention_bias" in name
            parameter.normal_(mean=1.0 if gain else 0.0, std=1.0 if bias else 0.2)
    return theirs


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, T5, Path]:
    """Their model, ours, and the folder that it came in."""
    theirs = build(CASES[request.param])
    theirs.save_pretrained(tmp_path)
    ours: Any = gg.load_hf(tmp_path)
    return theirs, ours.eval(), tmp_path


def texts(B: int, S: int, T: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A source and a target."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(V, (B, S), generator=generator), torch.randint(V, (B, T), generator=generator)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.abs().max() > 0
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_logits_and_all_gradients_are_the_same(pair: tuple[Any, T5, Path]) -> None:
    theirs, ours, _ = pair
    source, target = texts(2, 150, 140)  # longer than max_distance
    found, expected = ours(source, target), theirs(input_ids=source, decoder_input_ids=target).logits
    assert relative(found, expected) < 1e-5
    for logits in (found, expected):
        logits.log_softmax(dim=-1)[..., 7].mean().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    names = dict(layout_of(ours).names(ours.config))  # type: ignore[arg-type]
    assert names.keys() == dict(ours.named_parameters()).keys()
    for our, (their,) in names.items():
        gradient = ours.get_parameter(our).grad
        assert gradient is not None and relative(gradient, gradients.pop(their)) < 1e-4, our
    assert not gradients


def test_logits_and_gradients_are_the_same_with_padded_sources(pair: tuple[Any, T5, Path]) -> None:
    theirs, ours, _ = pair
    source, target = texts(3, 20, 9)
    visible = torch.arange(20) < torch.tensor([20, 13, 1])[:, None]
    found = ours(source, target, visible=visible)
    expected = theirs(input_ids=source, attention_mask=visible.long(), decoder_input_ids=target).logits
    assert relative(found, expected) < 1e-5
    assert relative(ours(source, target)[1:], expected[1:]) > 1e-2  # it matters
    changed = source.where(visible, 5)
    assert torch.equal(ours(changed, target, visible=visible), found)
    for logits in (found, expected):
        logits.log_softmax(dim=-1)[..., 7].mean().backward()
    their_table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    for our, their in (("token_embedding", "shared"), ("encoder.distances.table", their_table)):
        gradient = ours.get_parameter(f"{our}.weight").grad
        assert gradient is not None and relative(gradient, theirs.get_parameter(f"{their}.weight").grad) < 1e-4


@torch.no_grad()
def test_float64_logits_are_the_same(pair: tuple[Any, T5, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = (copy.deepcopy(model).double() for model in pair[:2])
    source, target = texts(2, 150, 140)
    found = ours(source, target)
    assert relative(found, theirs(input_ids=source, decoder_input_ids=target).logits) < 1e-5

    def exact_norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
        """Theirs has the mean in float32, whatever the input is."""
        return norm.weight * x / (x.square().mean(dim=-1, keepdim=True) + norm.variance_epsilon).sqrt()

    monkeypatch.setattr(transformers.models.t5.modeling_t5.T5LayerNorm, "forward", exact_norm)
    softmax_in_float32 = TRANSFORMERS_4
    within = 1e-5 if softmax_in_float32 else 1e-12
    assert relative(found, theirs(input_ids=source, decoder_input_ids=target).logits) < within


@torch.no_grad()
def test_cached_logits_are_those_of_one_pass(pair: tuple[Any, T5, Path]) -> None:
    ours = pair[1]
    source, target = texts(2, 17, 150)
    visible = torch.arange(17) < torch.tensor([17, 6])[:, None]
    memory, cache = ours.encode(source, visible=visible), KVCache(150)
    parts = [
        ours.head(ours.features(target[:, start:end], memory, visible=visible, context=cache))
        for start, end in ((0, 1), (1, 2), (2, 30), (30, 149), (149, 150))
    ]
    assert relative(torch.cat(parts, dim=1), ours(source, target, visible=visible)) < 1e-5


@torch.no_grad()
def test_cached_rows_may_have_different_lengths(pair: tuple[Any, T5, Path]) -> None:
    ours = pair[1]
    source, target = texts(2, 17, 60)
    memory, cache, lengths = ours.encode(source), KVCache(100), torch.tensor([50, 22])
    ours.features(target[:, :50], memory, context=cache)
    cache.truncate(lengths)
    new = torch.stack([row[n : n + 5] for row, n in zip(target, lengths.tolist(), strict=True)])
    found = ours.features(new, memory, context=cache)
    whole = ours.features(target, memory)
    expected = torch.stack([row[n : n + 5] for row, n in zip(whole, lengths.tolist(), strict=True)])
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("both_sides", [True, False])
@pytest.mark.parametrize(("n_bucket", "max_distance"), [(32, 128), (32, 20), (12, 40), (4, 3), (64, 200)])
def test_the_buckets_are_the_same(both_sides: bool, n_bucket: int, max_distance: int) -> None:
    theirs = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    offset = torch.arange(-300, 301)
    expected = theirs(offset, bidirectional=both_sides, num_buckets=n_bucket, max_distance=max_distance)
    found = buckets(offset, n_bucket, max_distance, both_sides=both_sides)
    assert torch.equal(found, expected)
    assert found.min() == 0 and found.max() == n_bucket - 1


def test_a_round_trip_keeps_every_bit(pair: tuple[Any, Any, Path], tmp_path: Path) -> None:
    theirs, ours, _ = pair
    out = tmp_path / "out"
    out.mkdir()
    write_hf_folder(out, ours, TOKENIZER, "card")
    again, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected, found = dict(theirs.named_parameters()), dict(again.named_parameters())
    assert found.keys() == expected.keys()
    for name, parameter in found.items():
        assert torch.equal(parameter, expected[name]), name
    source, target = texts(1, 9, 7)
    with torch.no_grad():
        logits = again.eval()(input_ids=source, decoder_input_ids=target).logits
        assert torch.equal(logits, theirs(input_ids=source, decoder_input_ids=target).logits)
    back: Any = gg.load_hf(out)
    assert back.config == ours.config
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in ours.state_dict().items())


@torch.no_grad()
def test_a_file_may_repeat_the_embedding(tmp_path: Path) -> None:
    build({}).save_pretrained(tmp_path)
    before: Any = gg.load_hf(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    old = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(32, 4)}
    whole = tensors | old | {name: tensors["shared.weight"].clone() for name in copies}
    save_file(whole, path)
    after: Any = gg.load_hf(tmp_path)
    assert torch.equal(after(*texts(1, 9, 7)), before(*texts(1, 9, 7)))
    for name in copies:
        save_file(whole | {name: tensors["shared.weight"] + 1}, path)
        with pytest.raises(UserError, match=f"{name} differs from shared.weight, but in T5"):
            gg.load_hf(tmp_path)
    save_file(whole | {"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": torch.ones(32, 4)}, path)
    with pytest.raises(UserError, match=r"surplus tensors .*encoder\.block\.1\.layer\.0\.SelfAttention\.relative"):
        gg.load_hf(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("case", ["1.0", "1.1"])
def test_a_copy_is_tied_to_itself(case: str, tmp_path: Path) -> None:
    build(CASES[case]).save_pretrained(tmp_path)
    model: Any = gg.load_hf(tmp_path)
    tied = case == "1.0"
    assert is_tied(model) == tied
    before, twin = model(*texts(1, 5, 3)), copy.deepcopy(model)
    assert count_parameters(twin) == count_parameters(model)
    twin.token_embedding.weight.zero_()
    features = torch.ones(1, 1, 24)
    assert bool(twin.head(features).any()) != tied
    assert torch.equal(model(*texts(1, 5, 3)), before)


# google-t5/t5-small, the fields of its config.json
SMALL = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_ff": 2048, "d_kv": 64, "d_model": 512,
    "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0,
    "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06, "n_positions": 512, "num_heads": 8, "num_layers": 6,
    "output_past": True, "pad_token_id": 0, "relative_attention_num_buckets": 32,
    "task_specific_params": {"summarization": {"prefix": "summarize: "}}, "use_cache": True, "vocab_size": 32128,
}  # fmt: skip
# google/t5-v1_1-small
SMALL_1_1 = SMALL | {
    "d_ff": 1024, "num_heads": 6, "num_layers": 8, "num_decoder_layers": 8, "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "saved", "parameters"),
    [("t5-small", SMALL, 60_506_624), ("t5-v1_1-small", SMALL_1_1, 76_961_152)],
)
def test_published_models_have_their_published_number_of_parameters(
    name: str, saved: dict[str, Any], parameters: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(saved))
    layout, config = read_config(tmp_path / "config.json", 0.0)
    assert layout.architecture == "t5"
    published = T5_SIZES[name]
    assert (config, config.decoder_layers) in (  # type: ignore[attr-defined]
        (published, published.n_layer),
        (T5Config(**{**vars(published), "n_decoder_layer": published.n_layer}), published.n_layer),
    )
    with torch.device("meta"):
        assert count_parameters(find_architecture("t5").model(config)) == parameters
        theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**saved))
    tied_there = "tie_word_embeddings" in saved and not TRANSFORMERS_4  # version 5 ties it whatever the field says
    untied = theirs.lm_head.weight.numel() if tied_there else 0
    assert count_parameters(theirs) + untied == parameters


def test_the_tie_is_read_from_the_files_of_both_versions_of_transformers(tmp_path: Path) -> None:
    path = tmp_path / "config.json"

    def tied(fields: dict[str, Any]) -> bool:
        path.write_text(json.dumps(SMALL | fields))
        config: Any = read_config(path, 0.0)[1]
        return bool(config.tied)

    assert tied({}) and tied({"tie_word_embeddings": True})
    assert not tied({"tie_word_embeddings": False})
    # transformers 5 writes that it is tied for version 1.1 as well.
    assert not tied({"tie_word_embeddings": True, "scale_decoder_outputs": False})
    assert tied({"tie_word_embeddings": True, "scale_decoder_outputs": True})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"feed_forward_proj": "gated-silu"},
            'feed_forward_proj is "gated-silu", but the architecture "t5" has "relu"',
        ),
        ({"feed_forward_proj": ["relu"]}, r'feed_forward_proj is \["relu"\], but'),
        ({"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}, 'dense_act_fn is "gelu", but .* has "gelu_new"'),
        ({"is_gated_act": True}, "is_gated_act is true, but"),
        ({"scale_decoder_outputs": True, "tie_word_embeddings": False}, "tie_word_embeddings is false, but"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is false, but"),
        ({"is_decoder": True}, 'is_decoder is true, and the architecture "t5" has no such setting'),
        ({"sliding_window": 4}, 'sliding_window is 4, and the architecture "t5" has no such setting'),
        ({"relative_attention_num_buckets": 7}, "model.n_bucket = 7 and model.max_distance = 128 do not fit"),
        ({"relative_attention_max_distance": 16}, "model.n_bucket = 32 and model.max_distance = 16 do not fit"),
        ({"d_kv": 0}, "model.head_size = 0 is out of range"),
        ({"num_decoder_layers": "6"}, 'num_decoder_layers is "6", not an integer'),
        ({"layer_norm_epsilon": 0}, "model.norm_eps = 0.0 is out of range"),
    ],
)
def test_other_settings_are_refused_by_name(fields: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL | fields))
    with pytest.raises(UserError, match=told):
        read_config(path, 0.0)


def test_the_config_fills_in_what_is_left_out() -> None:
    config = T5Config(n_layer=3, n_head=4, n_embd=48, head_size=None, n_hidden=None)
    assert (config.decoder_layers, config.head_dim, config.hidden) == (3, 12, 192)
    with pytest.raises(UserError, match=r"model\.n_embd = 50 is not divisible by model\.n_head = 4"):
        T5Config(n_head=4, n_embd=50, head_size=None)


def test_the_registry_knows_it() -> None:
    found = find_architecture("t5")
    assert found.kind == "encoder-decoder" and not found.takes_context
    model = found.model(T5Config(20, n_layer=1, n_head=2, n_embd=8, n_decoder_layer=2))
    assert len(model.blocks) == 3 and model.blocks[0] is model.encoder.blocks[0]


@pytest.mark.parametrize("case", ["1.0", "1.1"])
def test_a_fresh_model_starts_near_an_even_guess(case: str) -> None:
    torch.manual_seed(3)
    model = T5(T5Config(V, n_head=4, n_embd=64, head_size=16, n_hidden=128, gated=case == "1.1", tied=case == "1.0"))
    source, target = texts(4, 40, 40)
    with torch.no_grad():
        logits = model(source, target)
    assert 0.7 < logits.std().item() < 1.4


def test_dropout_is_where_training_can_see_it() -> None:
    torch.manual_seed(3)
    model = T5(T5Config(V, n_layer=1, n_head=4, n_embd=64, n_hidden=128, dropout=0.5))
    source, target = texts(2, 10, 8)
    assert not torch.equal(model(source, target), model(source, target))
    model.eval()
    assert torch.equal(model(source, target), model(source, target))
