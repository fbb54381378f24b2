"""The weights of a head are those that its queries, keys, values and results come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_models import DECODERS, C, H, build

from glassgpt.errors import UserError
from glassgpt.inspection.capture import capture, capture_names
from glassgpt.inspection.weights import head_weights, singular_values

ATTENTIVE = [name for name in DECODERS if any(".attn.q" in step for step in capture_names(build(name)))]


def full_matrices(model: nn.Module, layer: int, head: int) -> tuple[Tensor, Tensor]:
    """W_Qᵀ W_K and W_O W_V (C, C) of a head, without looking at how a model stores them.

    The inputs of attention are the C directions of its space, so that its steps are the columns of the matrices.
    """
    attn = model.blocks[layer].attn if model.blocks else model.attn
    found = {}
    for name, parameter in attn.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    attn.inner.register_forward_hook(lambda _, inputs, output: found.update(zip("qkv", inputs, strict=False)))
    for name in "qk":  # norms, if there are any, are no part of the products
        if hasattr(attn, f"norm_{name}"):
            setattr(attn, f"norm_{name}", nn.Identity())
    with torch.no_grad():
        attn(torch.eye(C).unsqueeze(1))  # each direction is a text of its own, so it hears itself alone
        q, k, v = ((found[x] if found[x].dim() == 4 else found[x].unsqueeze(1))[:, head, 0] for x in "qkv")  # (C, D)
        out = torch.zeros(C, 1, C)
        size = v.size(-1)
        out[:, 0, head * size : (head + 1) * size] = v
        added = attn.proj(out)[:, 0] if hasattr(attn, "proj") else v  # (C, C): row i is what direction i adds
    return q @ k.T, added.T


@pytest.mark.parametrize("architecture", ATTENTIVE)
def test_singular_values_are_those_of_the_whole_products(architecture: str) -> None:
    model = build(architecture)
    layers, heads = max(1, len(model.blocks)), 1 if architecture == "head" else H
    for layer, head in {(0, 0), (0, heads - 1), (layers - 1, 1 % heads), (layers - 1, heads - 1)}:
        found = singular_values(model, layer, head)
        D = C // heads
        assert found.qk.shape == found.ov.shape == (D,)
        for ours, product in zip((found.qk, found.ov), full_matrices(model, layer, head), strict=True):
            expected = np.linalg.svd(product.double().numpy(), compute_uv=False)
            assert ours.tolist() == pytest.approx(expected[:D].tolist(), abs=1e-5)
            assert expected[D:].tolist() == pytest.approx([0.0] * (C - D), abs=1e-5)


def test_the_weights_are_those_of_the_captured_steps() -> None:
    model, tokens = build("gpt3"), torch.tensor([[3, 1, 4]])
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("qkv.bias",)):
            nn.init.zeros_(parameter)
    _, seen = capture(model, tokens)
    x = model.blocks[1].norm1(seen["blocks.0.resid"][0])
    weights = head_weights(model, 1, 2)
    assert weights.o is not None
    torch.testing.assert_close(x @ weights.q.T, seen["blocks.1.attn.q"][0, 2])
    torch.testing.assert_close(x @ weights.k.T, seen["blocks.1.attn.k"][0, 2])
    torch.testing.assert_close(x @ weights.v.T, seen["blocks.1.attn.v"][0, 2])
    torch.testing.assert_close(seen["blocks.1.attn.out"][0, 2] @ weights.o.T, seen["blocks.1.attn.result"][0, 2])
    scores = x @ weights.q.T @ weights.k @ x.T / (C // H) ** 0.5
    torch.testing.assert_close(scores[2], seen["blocks.1.attn.scores"][0, 2, 2])


def test_a_head_that_copies_one_direction_has_one_singular_value() -> None:
    model, D = build("gpt2"), C // H
    nn.init.zeros_(model.blocks[0].attn.qkv.weight)
    model.blocks[0].attn.qkv.weight.data[2 * C + D, 3] = 2.0  # the first value channel of head 1 reads direction 3
    nn.init.zeros_(model.blocks[0].attn.proj.weight)
    model.blocks[0].attn.proj.weight.data[5, D] = 4.0  # and writes direction 5
    found = singular_values(model, 0, 1)
    assert found.ov.tolist() == pytest.approx([8.0, 0.0, 0.0, 0.0])
    assert not found.qk.any()
    assert not singular_values(model, 0, 0).ov.any()


@pytest.mark.parametrize(
    ("architecture", "layer", "head", "sentence"),
    [
        ("averaging", 0, 0, "this model has no attention, so it has no heads"),
        ("gpt2", 3, 0, "there is no attention in block 3: this model has 3 blocks, counted from 0"),
        ("gpt2", -1, 0, "there is no attention in block -1: this model has 3 blocks, counted from 0"),
        ("gpt2", 0, 4, "there is no head 4 in block 0: it has 4 heads, counted from 0"),
        ("gpt2", 0, -1, "there is no head -1 in block 0: it has 4 heads, counted from 0"),
        ("head", 0, 1, "there is no head 1 in block 0: it has 1 head, counted from 0"),
    ],
)
def test_a_head_that_is_not_there(architecture: str, layer: int, head: int, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        singular_values(build(architecture), layer, head)
    assert str(error.value) == sentence
