"""The experts that are captured are those that computed, and capturing them changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_models import B, T, V, build

from glassgpt.errors import UserError
from glassgpt.inspection.capture import capture, capture_names, gradients
from glassgpt.inspection.edit import edit
from glassgpt.inspection.experts import expert_blocks, routes_of
from glassgpt.inspection.trace import trace
from glassgpt.models.gpt_oss import GPTOss, GPTOssConfig

IDS = torch.randint(V, (T,), generator=torch.Generator().manual_seed(1)).tolist()
E, K = 5, 2


@pytest.fixture
def mixture() -> GPTOss:
    torch.manual_seed(0)
    model = GPTOss(GPTOssConfig(V, 12, 3, 4, 16, head_size=8, n_expert=E, n_active=K, band_width=4)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@torch.no_grad()
def test_the_experts_are_the_best_scores_of_the_router(mixture: GPTOss, tokens: Tensor) -> None:
    logits, seen = capture(mixture, tokens)
    torch.testing.assert_close(logits, mixture(tokens))
    for n, block in enumerate(mixture.blocks):
        experts, weights = seen[f"blocks.{n}.mlp.experts"], seen[f"blocks.{n}.mlp.weights"]
        assert experts.shape == weights.shape == (B, T, K) and experts.dtype == torch.long
        scores = block.mlp.router(block.norm2(seen[f"blocks.{n}.resid_mid"]))
        best = scores.sort(dim=-1, descending=True)
        assert torch.equal(experts, best.indices[..., :K])
        torch.testing.assert_close(weights, best.values[..., :K].softmax(dim=-1))
    assert all(block.mlp.inner.hook is None for block in mixture.blocks)


def test_routes_as_shares_and_loads(mixture: GPTOss) -> None:
    seen = trace(mixture, IDS)
    routes = routes_of(seen)
    assert routes.layers == (0, 1, 2) and routes.n_expert == E
    assert routes.experts.shape == routes.weights.shape == (3, T, K)
    for row in range(3):
        for at in range(T):
            expected = [0.0] * E
            for expert, weight in zip(routes.experts[row, at].tolist(), routes.weights[row, at].tolist(), strict=True):
                expected[expert] = weight
            assert routes.shares[row, at].tolist() == pytest.approx(expected)
        assert routes.loads[row].tolist() == [(routes.experts[row] == expert).sum() for expert in range(E)]
    assert (routes.loads.sum(dim=-1) == T * K).all()


@torch.no_grad()
def test_an_edit_of_the_choice_changes_who_computes(mixture: GPTOss) -> None:
    tokens = torch.tensor([IDS])
    with edit(mixture, zero=["blocks.1.mlp.weights"]):
        off = capture(mixture, tokens, ["blocks.1.mlp.out"])[1]["blocks.1.mlp.out"]
    assert not off.any()
    other = torch.full((1, T, K), 3)
    with edit(mixture, replace={"blocks.1.mlp.experts": other}):
        _, seen = capture(mixture, tokens, ["blocks.1.mlp.experts", "blocks.1.mlp.out", "blocks.1.resid_mid"])
    assert (seen["blocks.1.mlp.experts"] == 3).all()
    block = mixture.blocks[1]
    alone = block.mlp.experts(block.norm2(seen["blocks.1.resid_mid"])[0], other[0, :, :1], torch.ones(T, 1))
    torch.testing.assert_close(seen["blocks.1.mlp.out"][0], alone)


def test_a_choice_has_no_gradient_and_its_weights_have(mixture: GPTOss) -> None:
    tokens = torch.tensor([IDS])
    with pytest.raises(UserError, match=r"'blocks.0.mlp.experts' has no gradient: it is a choice"):
        gradients(mixture, tokens, lambda logits: logits[0, -1, 0], ["blocks.0.mlp.experts"])
    _, slopes = gradients(mixture, tokens, lambda logits: logits[0, -1, 0], ["blocks.0.mlp.weights"])
    assert slopes["blocks.0.mlp.weights"].any()


def test_a_model_without_experts_says_so() -> None:
    model = build("gpt2")
    assert expert_blocks(model) == [] and not any(".mlp.experts" in name for name in capture_names(model))
    with pytest.raises(UserError, match="this model has no experts"):
        routes_of(trace(model, IDS))
