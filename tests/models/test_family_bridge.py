"""bench/family.py: its model with the switches of a published one computes what that one computes."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from glassgpt.data.corpora import text_corpus
from glassgpt.data.dataset_cache import DataConfig, build_dataset
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt_oss import GPTOss, GPTOssConfig
from glassgpt.models.llama import Llama, LlamaConfig
from glassgpt.models.qwen3 import Qwen3, Qwen3Config
from glassgpt.tokenizers import TokenizerConfig

SCRIPT = Path(__file__).parents[2] / "bench" / "family.py"
SIZES: dict[str, Any] = {"vocab_size": 31, "block_size": 24, "n_layer": 3, "n_head": 4, "n_embd": 32}
LLAMA = SIZES | {"n_hidden": 40, "norm_eps": 1e-5}


@pytest.fixture(scope="module")
def family() -> ModuleType:
    spec = importlib.util.spec_from_file_location("family_bench", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["family_bench"] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    return module


def shaken(model: Model) -> Model:
    """Weights far from the zeros and ones of an initialisation, which would hide a mistake."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.3)
    return model


def published(name: str) -> Model:
    """The package's model that a row says it is."""
    models: dict[str, Any] = {
        "GPT-2": lambda: GPT2(GPT2Config(**SIZES)),
        "Llama": lambda: Llama(LlamaConfig(**LLAMA)),
        "Llama 3": lambda: Llama(LlamaConfig(**LLAMA, n_kv_head=2)),
        "Qwen3": lambda: Qwen3(Qwen3Config(**LLAMA, n_kv_head=2, tied=False, rope_base=1e4)),
        "GPT-oss": lambda: GPTOss(
            GPTOssConfig(**SIZES, n_hidden=20, head_size=None, n_kv_head=2, n_expert=8, n_active=2, band_width=16,
                         rope_base=1e4, rope_factor=1.0)
        ),
    }  # fmt: skip
    return shaken(models[name]())


def apart(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's weights with the stacked queries, keys and values under three names."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".qkv." in name:
            found |= {
                name.replace(".qkv.", f".{each}."): part for each, part in zip("qkv", tensor.chunk(3), strict=True)
            }
        else:
            found[name] = tensor
    return found


def bridge(family: ModuleType, row: Any) -> Model:
    """The model of a row at the sizes of this file."""
    return family.Bridge(family.BridgeConfig(**(SIZES | {"n_hidden": 40} | family.settings_of(row))))


def row_of(family: ModuleType, model: str) -> Any:
    return next(row for row in family.ROWS if row.model == model)


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Llama 3", "Qwen3", "GPT-oss"])
def test_a_row_computes_what_the_model_of_its_name_computes(family: ModuleType, name: str) -> None:
    theirs, ours = published(name), bridge(family, row_of(family, name))
    ours.load_state_dict(apart(theirs.state_dict()))
    tokens = torch.randint(31, (2, 24), generator=torch.Generator().manual_seed(1))
    expected, found = theirs(tokens), ours(tokens)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    expected.square().mean().backward()
    found.square().mean().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    for each, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, apart(gradients)[each], atol=1e-4, rtol=1e-4, msg=each)


def test_every_model_of_the_rows_is_checked(family: ModuleType) -> None:
    assert [row.model for row in family.ROWS if row.model] == ["GPT-2", "Llama", "Llama 3", "Qwen3", "GPT-oss"]


def test_a_row_changes_one_switch_of_the_row_before_it_and_its_logits(family: ModuleType) -> None:
    tokens = torch.randint(31, (1, 24), generator=torch.Generator().manual_seed(1))
    for row in family.ROWS[1:]:
        ours, earlier = bridge(family, row), bridge(family, family.before(row))
        changed = [
            f.name for f in fields(ours.config) if getattr(ours.config, f.name) != getattr(earlier.config, f.name)
        ]
        assert len(changed) == 1, row.name
        with torch.no_grad():
            assert not torch.allclose(shaken(ours)(tokens), shaken(earlier)(tokens), atol=1e-2), row.name


def test_the_clamped_gate_is_the_only_expert_of_one(family: ModuleType) -> None:
    sizes = SIZES | {"n_hidden": 40, "n_expert": 1, "n_active": 1}
    dense, mixture = (family.mlp_of(family.BridgeConfig(**sizes, mlp=mlp)) for mlp in ("clamped", "experts"))
    x = 8 * torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.normal_(std=0.5)
        experts = mixture.experts
        experts.gate_up[0, :, 0::2], experts.gate_up[0, :, 1::2] = dense.gate.weight.T, dense.up.weight.T
        experts.gate_up_bias[0, 0::2], experts.gate_up_bias[0, 1::2] = dense.gate.bias, dense.up.bias
        experts.down[0], experts.down_bias[0] = dense.down.weight.T, dense.down.bias
        torch.testing.assert_close(dense(x), mixture(x), atol=1e-3, rtol=1e-4)


def test_a_gated_mlp_has_about_as_many_weights_as_the_plain_one_and_so_have_the_active_experts(
    family: ModuleType,
) -> None:
    def weights(mlp: str, **settings: Any) -> int:
        found = family.mlp_of(family.BridgeConfig(mlp=mlp, **settings))
        return sum(p.numel() for name, p in found.named_parameters() if "router" not in name and "bias" not in name)

    plain, gated = weights("gelu"), weights("gated")
    assert gated == pytest.approx(plain, rel=0.01)
    assert weights("experts") == 4 * gated  # 2 of 8 are active
    assert weights("experts", n_expert=2) == gated


def test_the_learning_rate_rises_falls_and_ends_at_a_tenth(family: ModuleType) -> None:
    rates = [family.learning_rate(share / 100, 1.0) for share in range(101)]
    top = rates.index(max(rates))
    assert top == round(100 * family.WARM_UP) and rates[top] == pytest.approx(1.0)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.1) == pytest.approx(family.learning_rate(1.2, 1.0))


def test_differences_are_those_of_the_same_seed_to_the_row_before(family: ModuleType) -> None:
    runs = {
        name: [{"loss": loss + seed, "steps": 5, "parameters": 9} for seed in range(n)]
        for name, loss, n in (("GPT-2", 2.0, 2), ("grouped queries", 1.5, 2), ("biases again", 1.75, 1))
    }
    first, grouped, again = family.tabulate(runs)
    assert first["differences"] == [] and first["losses"] == [2.0, 3.0] and first["before"] is None
    assert grouped["before"] == "a head of its own" and grouped["differences"] == []  # that one has not run
    assert again["before"] == "grouped queries" and again["differences"] == [0.25]


def test_a_run_takes_its_time_learns_and_leaves_a_file(
    family: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out.json"
    text.write_text("the cat sat on the mat, and the dog ran home. " * 300, encoding="utf-8")
    options = ["--data", text, "--seconds", 0.3, "--seeds", 1, "--only", "GPT-2", "--only", "experts", "--json", out]
    monkeypatch.setattr(sys, "argv", ["family.py", *map(str, options)])
    family.main()
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [row["change"] for row in found["rows"]] == ["GPT-2", "experts"]
    assert all(row["steps"][0] >= 1 and 0 < row["losses"][0] < 3.5 for row in found["rows"])
    assert "seed 41  GPT-2" in capsys.readouterr().out


def test_a_run_starts_from_its_seed_and_stops_when_its_time_is_over(family: ModuleType) -> None:
    dataset = build_dataset(DataConfig(), TokenizerConfig(name="char"), corpus=text_corpus("abcdefgh " * 400))

    def run(seed: int, seconds: float) -> Any:
        return family.Run(family.BridgeConfig(n_layer=1), dataset, seed, seconds, 1e-3)

    one, again, other = (run(seed, 0.1).result() for seed in (1, 1, 2))
    assert one == again and one["steps"] == 0 and one["loss"] != other["loss"]
    short, long = run(1, 0.05), run(1, 0.2)
    family.train_in_turn([short, long])
    assert short.spent >= 0.05 and long.spent >= 0.2
    assert 1 <= short.state.step < long.state.step
    assert long.result()["loss"] < one["loss"]
