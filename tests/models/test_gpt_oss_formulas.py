"""GPT-oss by its formulas: the choice of experts, the reach of its bands, its rotations, its initial weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glassgpt.costs.memory import estimate_step_memory
from glassgpt.errors import UserError
from glassgpt.models.context import Documents, KVCache
from glassgpt.models.gpt_oss import GPTOss, GPTOssConfig, Routing, yarn_frequencies, yarn_scale
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

CONFIG = GPTOssConfig(
    vocab_size=50, block_size=32, n_layer=2, n_head=4, n_embd=24, n_kv_head=2, head_size=8, n_hidden=16, n_expert=5,
    n_active=2, band_width=3, rope_base=100.0, rope_factor=4.0, rope_length=32, rope_fast=3.0,
)  # fmt: skip
CPU = torch.device("cpu")


def shaken(config: GPTOssConfig = CONFIG) -> GPTOss:
    torch.manual_seed(0)
    model = GPTOss(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name else 0.0, std=0.3)
    return model.eval()


def some_tokens(B: int, T: int) -> Tensor:
    return torch.randint(50, (B, T), generator=torch.Generator().manual_seed(1))


def by_loops(mlp: Any, x: Tensor) -> Tensor:
    """What the MLP does with one token x (C), number by number: the independent reference."""
    scores = mlp.router.weight @ x + mlp.router.bias
    chosen = sorted(range(len(scores)), key=lambda e: -float(scores[e]))[: mlp.inner.n_active]
    total = sum(math.exp(scores[e]) for e in chosen)
    out = torch.zeros_like(x)
    for e in chosen:
        both = x @ mlp.experts.gate_up[e] + mlp.experts.gate_up_bias[e]
        hidden = []
        for gate, up in both.view(-1, 2).tolist():
            gate, up = min(gate, 7.0), max(-7.0, min(up, 7.0))
            hidden.append((up + 1) * gate / (1 + math.exp(-1.702 * gate)))
        answer = torch.tensor(hidden) @ mlp.experts.down[e] + mlp.experts.down_bias[e]
        out += math.exp(scores[e]) / total * answer
    return out


@torch.no_grad()
def test_the_mlp_is_its_formula_for_each_token() -> None:
    mlp = shaken().blocks[0].mlp
    x = 6 * torch.randn(2, 7, 24)
    expected = torch.stack([by_loops(mlp, token) for token in x.flatten(0, 1)]).view(x.shape)
    torch.testing.assert_close(mlp(x), expected, atol=1e-4, rtol=1e-5)


def test_each_expert_computes_only_for_the_tokens_that_chose_it() -> None:
    experts: Any = shaken().blocks[0].mlp.experts
    computed: list[int] = []
    answer = experts.answer
    experts.answer = lambda x, *matrices: computed.append(len(x)) or answer(x, *matrices)
    chosen = torch.tensor([[0, 3], [3, 1], [3, 0]])  # nobody chose 2 and 4
    experts(torch.randn(3, 24), chosen, torch.full((3, 2), 0.5))
    assert computed == [2, 1, 3]


def test_an_expert_that_nobody_chose_has_the_gradient_zero() -> None:
    experts: Any = shaken().blocks[0].mlp.experts
    experts(torch.randn(3, 24), torch.tensor([[0], [3], [3]]), torch.ones(3, 1)).square().sum().backward()
    for parameter in experts.parameters():
        assert parameter.grad is not None
        assert [bool(part.any()) for part in parameter.grad] == [True, False, False, True, False]


def test_a_hook_sees_the_choice_and_may_change_it() -> None:
    model, seen = shaken(), {}
    routing: Any = model.blocks[1].mlp.inner
    assert isinstance(routing, Routing) and not list(routing.parameters())
    plain = model(some_tokens(2, 6))
    routing.hook = seen.__setitem__
    torch.testing.assert_close(model(some_tokens(2, 6)), plain)
    assert list(seen) == ["scores", "experts", "weights"]
    assert seen["scores"].shape == (2, 6, 5)
    assert seen["experts"].shape == seen["weights"].shape == (2, 6, 2)
    torch.testing.assert_close(seen["weights"].sum(dim=-1), torch.ones(2, 6))
    assert (seen["weights"][..., 0] >= seen["weights"][..., 1]).all()
    routing.hook = lambda name, value: torch.zeros_like(value) if name == "weights" else None
    silent = model(some_tokens(2, 6))
    model.blocks[1].mlp.register_forward_hook(lambda *_: torch.zeros(2, 6, 24))
    routing.hook = None
    torch.testing.assert_close(model(some_tokens(2, 6)), silent)


@pytest.mark.parametrize(("n_layer", "reach"), [(1, 2), (2, 31)])
def test_even_layers_see_a_band_and_odd_ones_see_all(n_layer: int, reach: int) -> None:
    model = shaken(replace(CONFIG, n_layer=n_layer))
    tokens = some_tokens(1, 32)
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda module, inputs, out: embedded.append(out.retain_grad() or out))
    model(tokens)[0, 20].square().sum().backward()
    moved = embedded[0].grad[0].abs().sum(dim=-1) > 0
    assert moved.tolist() == [max(0, 20 - reach) <= t <= 20 for t in range(32)]


@torch.no_grad()
def test_rows_of_different_lengths_continue_as_if_alone() -> None:
    model, tokens = shaken(), some_tokens(3, 20)
    cache = KVCache(32)
    model(tokens[:, :12], context=cache)
    cache.truncate(torch.tensor([12, 5, 2]))
    step = torch.stack([tokens[0, 12:14], tokens[1, 5:7], tokens[2, 2:4]])
    found = model(step, context=cache)
    for row, length in enumerate((12, 5, 2)):
        alone = model(tokens[row : row + 1, : length + 2])
        torch.testing.assert_close(found[row], alone[0, -2:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_packed_documents_are_each_as_in_a_row_of_its_own() -> None:
    model, tokens = shaken(), some_tokens(1, 20)
    tokens[tokens == 0] = 1
    tokens[0, [0, 9]] = 0
    found = model(tokens, context=Documents(tokens, 0, CONFIG.band_width))
    for start, end in ((0, 9), (9, 20)):
        torch.testing.assert_close(found[:, start:end], model(tokens[:, start:end]), atol=1e-4, rtol=1e-4)


def test_yarn_stretches_the_slow_pairs_only() -> None:
    published = GPTOssConfig()
    config = replace(published, rope_factor=1.0)
    plain, stretched = (yarn_frequencies(each, CPU).double() for each in (config, published))
    turns = 4096 * plain / (2 * math.pi)
    ratio = plain / stretched
    torch.testing.assert_close(ratio[turns >= 32], torch.ones(int((turns >= 32).sum()), dtype=torch.float64))
    torch.testing.assert_close(
        ratio[turns <= 1], torch.full((int((turns <= 1).sum()),), 32.0, dtype=torch.float64), atol=1e-4, rtol=1e-6
    )
    between = (1 / ratio)[(turns < 32) & (turns > 1)]
    assert len(between) > 5
    steps = between.diff()  # linear in the number of the pair
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), atol=1e-5, rtol=0)
    assert yarn_scale(published) == pytest.approx(1.3465735902799727**2 / 8)
    assert yarn_scale(config) == 1 / 8


def test_norms_multiply_by_the_gain_before_they_round() -> None:
    norm = nn.RMSNorm(64, eps=1e-5)
    nn.init.normal_(norm.weight)
    norm, x = norm.bfloat16(), torch.randn(500, 64).bfloat16()
    wide = x.float()
    expected = norm.weight * (wide * (wide.square().mean(dim=-1, keepdim=True) + 1e-5).rsqrt())
    assert torch.equal(norm(x), expected.to(torch.bfloat16))


def test_a_new_model_starts_with_even_odds() -> None:
    torch.manual_seed(0)
    model = GPTOss(replace(CONFIG, n_embd=64))
    loss = nn.functional.cross_entropy(model(some_tokens(4, 32)).flatten(0, 1), some_tokens(4, 32).flatten())
    assert loss.item() == pytest.approx(math.log(50), abs=0.1)
    for name, parameter in model.named_parameters():
        assert name.endswith(("bias", "sinks")) == (not parameter.any()), name


def test_biases_of_experts_do_not_decay() -> None:
    model = GPTOss(CONFIG)
    for name in ("adamw", "muon"):
        optimizer = build_optimizer(model, OptimizerConfig(name=name))
        still = {p for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
        expected = {p for name, p in model.named_parameters() if name.endswith(("bias", "sinks")) or "norm" in name}
        assert still == expected


def test_the_memory_of_a_step_counts_the_active_experts() -> None:
    """Fake tensors cannot choose, so every expert gets its even share."""
    few, many = (
        estimate_step_memory("gpt_oss", replace(CONFIG, n_active=k), OptimizerConfig(), precision="float32")
        for k in (1, 4)
    )
    assert few.weights == many.weights
    per_token = 24 + 24 + 4 * 16  # of each choice at least: its input, its answer, and its hidden units
    assert many.activations["MLP"] - few.activations["MLP"] > 2 * 32 * 3 * per_token * 4


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"n_active": 6}, "model.n_active = 6 of model.n_expert = 5 experts is out of range"),
        ({"n_active": 0}, "model.n_active = 0 of"),
        ({"band_width": 0}, "model.band_width = 0"),
        ({"rope_factor": 0.5}, "model.rope_factor = 0.5 is out of range"),
        ({"rope_length": 6}, "model.rope_length = 6 is out of range: it must be above 2π"),
        ({"rope_slow": 3.0}, "model.rope_slow = 3.0 is not below model.rope_fast"),
        ({"head_size": 7}, "a head has 7 dimensions"),
        ({"n_kv_head": 3}, "n_head = 4 is not divisible by model.n_kv_head = 3"),
    ],
)
def test_impossible_sizes_are_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        replace(CONFIG, **fields)
