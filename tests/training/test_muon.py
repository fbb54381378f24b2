"""Muon against torch's, against singular values in float64, and through a whole run that is interrupted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.models import find_architecture
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt_oss import GPTOss, GPTOssConfig
from glassgpt.training.muon import Muon, orthogonalise
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer, find_matrices, state_of

CONFIG = OptimizerConfig(name="muon", lr=3e-3, weight_decay=0.1)


def build() -> GPT2:
    torch.manual_seed(0)
    return GPT2(GPT2Config(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=8))


def draw(model: nn.Module, step: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(step)
    return {name: torch.randn(p.shape, generator=source) for name, p in model.named_parameters()}


def go(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> nn.Module:
    for step in range(steps):
        gradients = draw(model, step)
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name].clone()
        optimizer.step()
    return model


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 24), columns=st.integers(1, 24), seed=st.integers(0, 99))
def test_singular_values_come_near_1_and_directions_stay(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(1, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix[0], full_matrices=False)
    found = u.mT @ orthogonalise(matrix)[0] @ vh.mT
    large = s > 0.02 * s.max()  # five rounds lift smaller ones only in part
    assert torch.all((found.diag()[large] > 0.3) & (found.diag()[large] < 1.3))
    torch.testing.assert_close(found - found.diag().diag(), torch.zeros_like(found), atol=1e-4, rtol=0)


def test_a_step_is_that_of_torch() -> None:
    """torch computes in bfloat16, so the two agree to about 1% of a step."""
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    optimizers = (
        Muon({ours: 1}, [], momentum=0.95, weight_decay=0.1, lr=0.01),
        torch.optim.Muon([theirs], lr=0.01, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for step in range(6):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = torch.randn(12, 20, generator=torch.Generator().manual_seed(step + 1))
            optimizer.step()
    moved = (theirs - weight).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_what_is_no_matrix_has_adamw() -> None:
    model, other = build(), build()
    matrices = find_matrices(model)
    go(model, build_optimizer(model, CONFIG))
    go(other, build_optimizer(other, OptimizerConfig(lr=CONFIG.lr, weight_decay=CONFIG.weight_decay)))
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        in_a_block = name.startswith("blocks.") and ours.dim() == 2
        assert (ours in matrices) == in_a_block
        assert torch.equal(ours, theirs) != in_a_block, name


@pytest.mark.parametrize(("section", "n_matrices"), [("averaging", 0), ("head", 3), ("decoder", 4 * 2)])
def test_tables_and_heads_are_left_to_adamw(section: str, n_matrices: int) -> None:
    architecture = find_architecture(section)
    model = architecture.model(architecture.config(vocab_size=11, block_size=6, n_layer=2, n_embd=8, n_head=2))
    assert len(find_matrices(model)) == n_matrices
    go(model, build_optimizer(model, CONFIG), steps=1)


def test_query_key_and_value_are_three_matrices() -> None:
    stack = nn.Parameter(torch.zeros(24, 8))
    parts = [nn.Parameter(torch.zeros(8, 8)) for _ in range(3)]
    gradient = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
    stack.grad = gradient.clone()
    for part, its in zip(parts, gradient.split(8), strict=True):
        part.grad = its.clone()
    for matrices in ({stack: 3}, dict.fromkeys(parts, 1)):
        Muon(matrices, [], momentum=0.95, weight_decay=0.0, lr=0.1).step()
    torch.testing.assert_close(stack, torch.cat(list(parts)))
    assert sorted(find_matrices(build()).values()) == [1, 1, 1, 1, 1, 1, 3, 3]


def test_each_expert_is_a_matrix_of_its_own() -> None:
    """A stack (E, in, out), of wide matrices and of tall ones."""
    for shape in ((3, 4, 6), (3, 6, 4)):
        stack = nn.Parameter(torch.zeros(shape))
        parts = [nn.Parameter(torch.zeros(shape[1:])) for _ in range(3)]
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        gradient[1] *= 100  # the step of an expert does not depend on how large the gradients of others are
        stack.grad = gradient.clone()
        for part, its in zip(parts, gradient, strict=True):
            part.grad = its.clone()
        for matrices in ({stack: 3}, dict.fromkeys(parts, 1)):
            Muon(matrices, [], momentum=0.95, weight_decay=0.0, lr=0.1).step()
        torch.testing.assert_close(stack, torch.stack(list(parts)))


def test_experts_have_muon_and_their_biases_adamw() -> None:
    torch.manual_seed(0)
    model = GPTOss(GPTOssConfig(11, 6, 2, n_head=2, n_embd=8, head_size=4, n_hidden=6, n_expert=3, n_active=2))
    found = find_matrices(model)
    counts = {name: found[p] for name, p in model.named_parameters() if p in found}
    assert {name: count for name, count in counts.items() if "experts" in name} == {
        f"blocks.{n}.mlp.experts.{name}": 3 for n in range(2) for name in ("gate_up", "down")
    }
    assert all(count == 1 for name, count in counts.items() if "experts" not in name)
    before = {p: p.detach().clone() for p in found}
    go(model, build_optimizer(model, CONFIG), steps=1)
    for p, count in found.items():  # the step of each matrix, without the decay, has singular values near 1
        step = (p.detach() - (1 - CONFIG.lr * CONFIG.weight_decay) * before[p]).view(count, -1, p.size(-1))
        lengths = torch.linalg.svdvals(step) / (CONFIG.lr * 0.2 * max(step.shape[1:]) ** 0.5)
        assert lengths.max(dim=-1).values.min() > 0.5 and lengths.max() < 1.3


def test_the_state_is_what_a_checkpoint_expects() -> None:
    model = build()
    optimizer = build_optimizer(model, CONFIG)
    go(model, optimizer, steps=1)
    for parameter in model.parameters():
        expected, found = state_of(optimizer, parameter), optimizer.state[parameter]
        assert {key: (t.shape, t.dtype) for key, t in found.items()} == {
            key: (t.shape, t.dtype) for key, t in expected.items()
        }


def test_a_step_after_an_overflow_changes_nothing() -> None:
    model = build()
    optimizer = build_optimizer(model, CONFIG)
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]  # as a GradScaler tells a fused optimizer
    go(model, optimizer, steps=1)
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))


def test_a_momentum_out_of_range() -> None:
    with pytest.raises(UserError, match=r"optimizer\.momentum = 1\.0 is out of range"):
        OptimizerConfig(name="muon", momentum=1.0)


def test_each_step_goes_downhill() -> None:
    weight = nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)))
    optimizer = Muon({weight: 1}, [], momentum=0.0, weight_decay=0.0, lr=0.02)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
