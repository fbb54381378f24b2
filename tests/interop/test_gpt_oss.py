"""GPT-oss beside `transformers`: the same logits and gradients, both ways bit for bit, also from MXFP4 files.

Weights are so large that gates and ups reach their limits, and so different that a mistake in any tensor shows.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from versions import TRANSFORMERS_4, rope_fields, rope_parameters

import glassgpt as gg
from glassgpt.costs.flops import count_active_parameters, count_parameters
from glassgpt.errors import UserError
from glassgpt.interop.huggingface import names_in, read_config
from glassgpt.interop.huggingface_export import write_hf_folder
from glassgpt.interop.layouts import layout_of
from glassgpt.interop.mxfp4 import dequantise
from glassgpt.models import Model, build_model
from glassgpt.models.context import KVCache
from glassgpt.models.gpt_oss import LIMIT, GPTOssConfig
from glassgpt.tokenizers.bpe import BPETokenizer

transformers = pytest.importorskip("transformers")

TEXT = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n" * 3
TOKENIZER = BPETokenizer.train(TEXT, 300, ["<|endoftext|>"])
V = TOKENIZER.vocab_size
YARN = {"rope_type": "yarn", "factor": 8.0, "beta_fast": 4.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 64, "rope_theta": 100.0}  # fmt: skip
SIZES = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 16, "intermediate_size": 32, "max_position_embeddings": 512, "num_local_experts": 6,
         "num_experts_per_tok": 2, "sliding_window": 5, "rope_parameters": YARN}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "yarn": {},
    "yarn-32": {"rope_parameters": None, "max_position_embeddings": 131072, "num_key_value_heads": 1,
                "num_experts_per_tok": 4},
    "plain-rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "sliding_window": 1},
    "all-experts": {"num_local_experts": 3, "num_experts_per_tok": 3, "num_key_value_heads": 4, "head_dim": 6},
    "one-expert": {"num_experts_per_tok": 1, "sliding_window": 100},
}  # fmt: skip


def build(**fields: Any) -> Any:
    """A small model of transformers whose every tensor matters."""
    torch.manual_seed(0)
    fields = {**SIZES, **fields}
    rope = rope_fields(fields.pop("rope_parameters"))
    config = transformers.GptOssConfig(**fields, **rope, attn_implementation="eager")
    theirs = transformers.GptOssForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            gain = "norm" in name and name.endswith("weight")
            wide = "gate_up" in name or "sinks" in name
            parameter.normal_(mean=1.0 if gain else 0.0, std=0.8 if wide else 0.2)
    return theirs


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Model]:
    """Their model, and ours from its files."""
    theirs = build(**CASES[request.param])
    theirs.save_pretrained(tmp_path)
    return theirs, gg.load_hf(tmp_path).eval()


def some_tokens(B: int, T: int) -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(2))


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def paired_gradients(theirs: Any, ours: Model) -> dict[str, tuple[Tensor, Tensor]]:
    """Our gradient and theirs of every parameter of ours, after a loss of the logits."""
    tokens = some_tokens(3, 48)
    for logits in (ours(tokens), theirs(tokens).logits):
        logits.square().mean().backward()
    names = names_in(dict(theirs.named_parameters()), layout_of(ours), ours.config)
    return {name: (p.grad, theirs.get_parameter(names[name][0]).grad) for name, p in ours.named_parameters()}


def test_logits_and_gradients_of_every_tensor_are_the_same(pair: tuple[Any, Model]) -> None:
    theirs, ours = pair
    tokens = some_tokens(3, 48)
    worst = relative(ours(tokens), theirs(tokens).logits)
    assert worst < 1e-5
    assert count_parameters(ours) == count_parameters(theirs)
    gradients = paired_gradients(theirs, ours)
    distances = {name: relative(mine, other) for name, (mine, other) in gradients.items() if other.abs().max() > 0}
    # The softmax over one score is 1, whatever the router says.
    unmoved = {name for name in gradients if "router" in name} if ours.config.n_active == 1 else set()
    assert gradients.keys() - distances.keys() == unmoved
    print(f"logits {worst:.1e}, gradients {max(distances.values()):.1e}")
    assert max(distances.values()) < 1e-4, distances


def test_the_toys_reach_the_limits_of_gates_and_ups(pair: tuple[Any, Model]) -> None:
    seen: list[Tensor] = []
    ours = pair[1]
    experts: Any = ours.blocks[0].mlp.experts
    experts.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        ours(some_tokens(2, 48))
        both = seen[0] @ experts.gate_up[0] + experts.gate_up_bias[0]
    gate, up = both[:, 0::2], both[:, 1::2]
    for reached in (gate > LIMIT, gate < -LIMIT, up > LIMIT, up < -LIMIT):
        assert 0.001 < reached.float().mean() < 0.4


@torch.no_grad()
def test_float64_logits_are_the_same(pair: tuple[Any, Model]) -> None:
    theirs, ours = (copy.deepcopy(each).double() for each in pair)
    if not TRANSFORMERS_4:
        theirs.set_experts_implementation("eager")  # the default, one product for all experts, has no float64
    for name, module in list(theirs.named_modules()):  # its norms compute in float32, which these weights magnify
        if name.endswith("norm"):
            exact = torch.nn.RMSNorm(32, eps=1e-5, dtype=torch.float64)
            exact.load_state_dict(module.state_dict())
            theirs.set_submodule(name, exact)
    tokens = some_tokens(2, 48)
    distance = relative(ours(tokens), theirs(tokens).logits)
    print(f"float64 {distance:.1e}")
    assert distance < 1e-6


@torch.no_grad()
def test_cached_logits_are_those_of_one_pass(pair: tuple[Any, Model]) -> None:
    ours, tokens = pair[1], some_tokens(2, 48)
    cache, parts = KVCache(48), []
    for start, end in ((0, 3), (3, 4), (4, 5), (5, 6), (6, 21), (21, 47), (47, 48)):
        parts.append(ours(tokens[:, start:end], context=cache))
    assert relative(torch.cat(parts, dim=1), ours(tokens)) < 1e-5


@torch.no_grad()
def test_a_watched_pass_is_the_same_and_its_patterns_lack_the_sinks(pair: tuple[Any, Model]) -> None:
    theirs, ours = pair
    tokens = some_tokens(2, 20)
    patterns: list[Tensor] = []
    for block in ours.blocks:
        block.attn.inner.hook = lambda name, value: patterns.append(value) if name == "pattern" else None
    expected = theirs(tokens, output_attentions=True)
    assert relative(ours(tokens), expected.logits) < 1e-5
    for mine, other in zip(patterns, expected.attentions, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)
        assert mine.sum(dim=-1).min() > 0.0 and mine.sum(dim=-1).max() < 1.0


def test_a_round_trip_keeps_every_bit(pair: tuple[Any, Model], tmp_path: Path) -> None:
    theirs, ours = pair
    out = tmp_path / "out"
    out.mkdir()
    write_hf_folder(out, ours, TOKENIZER, "card")
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        out, output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = dict(theirs.named_parameters())
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    with torch.no_grad():
        assert torch.equal(again.eval()(some_tokens(1, 9)).logits, theirs(some_tokens(1, 9)).logits)
    assert gg.load_hf(out).config == ours.config


# openai/gpt-oss-20b, config.json
PUBLISHED: dict[str, Any] = {
    "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
    "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
    "initial_context_length": 4096, "initializer_range": 0.02, "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12, "max_position_embeddings": 131072,
    "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8,
    "num_local_experts": 32, "output_router_logits": False, "pad_token_id": 199999,
    "quantization_config": {
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
                                   "lm_head"],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                     "rope_type": "yarn", "truncate": False},
    "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
    "tie_word_embeddings": False, "transformers_version": "4.55.0.dev0", "use_cache": True, "vocab_size": 201088,
}  # fmt: skip


def test_gpt_oss_20b_has_its_published_numbers_of_parameters(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    layout, config = read_config(tmp_path / "config.json", 0.0)
    assert config == GPTOssConfig(n_kv_head=8, n_hidden=2880)
    with torch.device("meta"):
        ours = build_model(layout.architecture, config)
        theirs = transformers.GptOssForCausalLM(transformers.GptOssConfig(num_hidden_layers=24, num_local_experts=32))
    assert count_parameters(ours) == count_parameters(theirs) == 20_914_757_184
    # Table 1 of the model card: 20.91 and 3.61 billion; the active ones there are without the token embedding.
    assert count_active_parameters(ours) - ours.get_parameter("token_embedding.weight").numel() == 3_608_307_264


def test_a_config_without_sizes_means_those_of_the_library(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_oss"}))
    _, config = read_config(tmp_path / "config.json", 0.0)
    with torch.device("meta"):
        theirs = transformers.GptOssForCausalLM(transformers.GptOssConfig())
        assert count_parameters(build_model("gpt_oss", config)) == count_parameters(theirs)
    rope = rope_parameters(theirs.config)
    assert (config.rope_base, config.rope_factor, config.rope_length) == (rope["rope_theta"], 32.0, 4096)


def test_a_null_means_no_scaling_and_a_missing_field_the_default(tmp_path: Path) -> None:
    """As transformers 4.56 writes and reads it; version 5 writes rope_parameters."""
    path = tmp_path / "config.json"
    factors = []
    for saved in (PUBLISHED | {"rope_scaling": None}, {n: v for n, v in PUBLISHED.items() if n != "rope_scaling"}):
        path.write_text(json.dumps(saved))
        config: Any = read_config(path, 0.0)[1]
        factors.append(config.rope_factor)
    assert factors == [1.0, 32.0]


YARN_20B = PUBLISHED["rope_scaling"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("attention_bias", False, "attention_bias is false, but"),
        ("hidden_act", "gelu", 'hidden_act is "gelu", but'),
        ("layer_types", ["full_attention"] * 24, "layer_types is .*full_attention.*, but"),
        ("num_experts_per_tok", 33, "n_active = 33 .* num_experts_per_tok is model.n_active"),
        ("num_key_value_heads", 7, "n_head = 64 is not divisible by model.n_kv_head = 7"),
        ("partial_rotary_factor", 0.5, "partial_rotary_factor is 0.5, and .* has no such setting"),
        ("quantization_config", {"quant_method": "gptq"}, 'quantization_config has the quant_method "gptq", only'),
        ("quantization_config", {"bits": 4}, "quantization_config has the quant_method null, only"),
        ("rope_scaling", YARN_20B | {"truncate": True}, "rope_scaling is .*, but"),
        ("rope_scaling", YARN_20B | {"attention_factor": 1.0}, "rope_scaling is .*, but"),
        ("rope_scaling", YARN_20B | {"rope_type": "llama3"}, "rope_scaling is .*llama3.*, but"),
        ("rope_scaling", YARN_20B | {"factor": None}, "factor is missing or null"),
        ("rope_scaling", YARN_20B | {"beta_slow": 64.0}, "model.rope_slow = 64.0 is not below model.rope_fast = 32.0"),
        ("sliding_window", None, "sliding_window is missing or null"),
        ("swiglu_alpha", 1.0, "swiglu_alpha is 1.0, but"),
        ("swiglu_limit", 8.0, "swiglu_limit is 8.0, but"),
        ("tie_word_embeddings", True, "tie_word_embeddings is true, but"),
    ],
)
def test_other_settings_are_refused_by_name(name: str, value: object, told: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PUBLISHED | {name: value}))
    with pytest.raises(UserError, match=told):
        read_config(path, 0.0)


def random_mxfp4(E: int, R: int, G: int, seed: int) -> tuple[Tensor, Tensor]:
    """Blocks and scales in which every byte may occur."""
    draw = torch.Generator().manual_seed(seed)
    blocks = torch.randint(256, (E, R, G, 16), generator=draw, dtype=torch.uint8)
    return blocks, torch.randint(255, (E, R, G), generator=draw, dtype=torch.uint8)


def test_mxfp4_is_read_as_transformers_reads_it() -> None:
    convert = pytest.importorskip("transformers.integrations.mxfp4").convert_moe_packed_tensors
    blocks, scales = random_mxfp4(3, 40, 5, seed=0)
    found = dequantise(blocks, scales)
    assert found.shape == (3, 160, 40) and found.is_contiguous()
    assert torch.equal(found, convert(blocks, scales, dtype=torch.float32))


def test_mxfp4_by_hand() -> None:
    """The numbers of a block: the low half of each byte first, the sign in the highest of four bits."""
    blocks = torch.zeros(1, 1, 1, 16, dtype=torch.uint8)
    blocks[0, 0, 0, :3] = torch.tensor([0x21, 0x7F, 0x90])
    for scale, factor in ((127, 1.0), (130, 8.0), (0, 2.0**-127), (254, 2.0**127)):
        found = dequantise(blocks, torch.tensor([[[scale]]], dtype=torch.uint8))
        expected = torch.tensor([0.5, 1.0, -6.0, 6.0, 0.0, -0.5], dtype=torch.float64) * factor
        assert torch.equal(found[0, :6, 0], expected.float())
        assert not found[0, 6:].any()
    assert dequantise(blocks, torch.tensor([[[255]]], dtype=torch.uint8)).isnan().all()


def quantised_folder(folder: Path) -> Any:
    """A small checkpoint in the published format; returns the model of transformers with the same weights."""
    theirs = build(hidden_size=64)
    theirs.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    E, C, F = 6, 64, 32
    with torch.no_grad():
        for n, layer in enumerate(theirs.model.layers):
            for name, rows, columns in (("gate_up_proj", 2 * F, C), ("down_proj", C, F)):
                blocks, _ = random_mxfp4(E, rows, columns // 32, seed=n)
                scales = torch.randint(122, 127, blocks.shape[:-1], dtype=torch.uint8)
                whole = f"model.layers.{n}.mlp.experts.{name}"
                del tensors[whole]
                tensors |= {f"{whole}_blocks": blocks, f"{whole}_scales": scales}
                getattr(layer.mlp.experts, name).copy_(dequantise(blocks, scales))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": PUBLISHED["quantization_config"]}))
    return theirs


@torch.no_grad()
def test_a_checkpoint_in_mxfp4_is_loaded(tmp_path: Path) -> None:
    theirs = quantised_folder(tmp_path)
    ours, tokens = gg.load_hf(tmp_path).eval(), some_tokens(2, 48)
    assert relative(ours(tokens), theirs(tokens).logits) < 1e-5
    if TRANSFORMERS_4:
        return  # reads it with one more package
    dequantising = transformers.Mxfp4Config(dequantize=True)
    read = transformers.GptOssForCausalLM.from_pretrained(
        tmp_path, quantization_config=dequantising, dtype=torch.float32, attn_implementation="eager"
    )
    assert relative(ours(tokens), read.eval()(tokens).logits) < 1e-5


def damaged(name: str, change: Any, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    changed = change(tensors.pop(name))
    save_file(tensors | ({} if changed is None else {name: changed}), folder / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "gate_up_proj_scales",
            lambda _: None,
            "gate_up_proj_blocks is in MXFP4, but there is no .*gate_up_proj_scales",
        ),
        ("gate_up_proj_blocks", lambda _: None, "lacks tensors .*gate_up_proj"),
        ("down_proj_scales", lambda scales: scales[:, :-1].clone(), "down_proj is no MXFP4: its blocks are uint8"),
        ("down_proj_blocks", lambda blocks: blocks.int(), "down_proj is no MXFP4: its blocks are int32"),
        ("down_proj_blocks", lambda blocks: blocks[..., :8].clone(), r"down_proj is no MXFP4: .* \(6, 64, 1, 8\)"),
        ("down_proj_bias", lambda bias: bias[:-1].clone(), r"down_proj_bias is float32 \(5, 64\)"),
    ],
)
def test_damaged_mxfp4_is_refused_by_name(name: str, change: Any, told: str, tmp_path: Path) -> None:
    quantised_folder(tmp_path)
    damaged(f"model.layers.1.mlp.experts.{name}", change, tmp_path)
    with pytest.raises(UserError, match=told):
        gg.load_hf(tmp_path)


def test_mxfp4_without_its_setting_is_refused(tmp_path: Path) -> None:
    quantised_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"lacks tensors for the GPT-oss of its config\.json: .*down_proj"):
        gg.load_hf(tmp_path)
