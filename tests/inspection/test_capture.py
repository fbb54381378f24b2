"""What is captured is what the model computes, and capturing leaves no trace in the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_models import DECODERS, B, C, H, T, V, build, state

from glassgpt.errors import UserError
from glassgpt.inspection.capture import capture, capture_names, gradients
from glassgpt.inspection.edit import edit
from glassgpt.models.gpt2 import GPT2


@pytest.mark.parametrize("architecture", DECODERS)
def test_logits_of_a_watched_pass_equal_the_fused(architecture: str, tokens: Tensor) -> None:
    model = build(architecture).double()  # without norms the logits are large: float32 would need a tolerance to match
    logits, activations = capture(model, tokens)
    torch.testing.assert_close(logits, model(tokens), atol=1e-10, rtol=1e-10)
    assert list(activations) == capture_names(model)


@pytest.mark.parametrize("architecture", DECODERS)
def test_each_block_takes_the_stream_to_the_next(architecture: str, tokens: Tensor) -> None:
    model = build(architecture)
    logits, activations = capture(model, tokens)
    stream = activations.get("embed")
    for n, block in enumerate(model.blocks):
        stream = block(stream)
        torch.testing.assert_close(activations[f"blocks.{n}.resid"], stream, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.head(activations["final"]), logits)


def test_names_and_shapes(model: GPT2, tokens: Tensor) -> None:
    _, activations = capture(model, tokens)
    D = C // H
    shapes = {name: tuple(value.shape) for name, value in activations.items()}
    assert {name: shape for name, shape in shapes.items() if not name.startswith(("blocks.0", "blocks.2"))} == {
        "embed": (B, T, C),
        "blocks.1.attn.q": (B, H, T, D),
        "blocks.1.attn.k": (B, H, T, D),
        "blocks.1.attn.v": (B, H, T, D),
        "blocks.1.attn.scores": (B, H, T, T),
        "blocks.1.attn.pattern": (B, H, T, T),
        "blocks.1.attn.out": (B, H, T, D),
        "blocks.1.attn.result": (B, H, T, C),
        "blocks.1.resid_mid": (B, T, C),
        "blocks.1.mlp.hidden": (B, T, 4 * C),
        "blocks.1.mlp.out": (B, T, C),
        "blocks.1.resid": (B, T, C),
        "final": (B, T, C),
    }  # fmt: skip
    assert len(activations) == 2 + 3 * 11


def test_patterns_are_causal_distributions(model: GPT2, tokens: Tensor) -> None:
    _, activations = capture(model, tokens)
    for n in range(3):
        pattern = activations[f"blocks.{n}.attn.pattern"]
        torch.testing.assert_close(pattern.sum(dim=-1), torch.ones(B, H, T))
        assert (pattern.triu(diagonal=1) == 0).all()
        assert (pattern.tril()[..., 1:, :1] > 0).all()
        assert (activations[f"blocks.{n}.attn.scores"].triu(diagonal=1)[..., 0, 1:] == -torch.inf).all()
        torch.testing.assert_close(pattern @ activations[f"blocks.{n}.attn.v"], activations[f"blocks.{n}.attn.out"])


def test_the_stream_is_the_sum_of_what_was_added_to_it(model: GPT2, tokens: Tensor) -> None:
    _, seen = capture(model, tokens)
    stream = seen["embed"]
    for n, block in enumerate(model.blocks):
        heads = seen[f"blocks.{n}.attn.result"].sum(dim=1) + block.attn.proj.bias
        torch.testing.assert_close(seen[f"blocks.{n}.resid_mid"], stream + heads, atol=1e-5, rtol=1e-5)
        stream = seen[f"blocks.{n}.resid_mid"] + seen[f"blocks.{n}.mlp.out"]
        torch.testing.assert_close(seen[f"blocks.{n}.resid"], stream)
        torch.testing.assert_close(block.mlp.down(seen[f"blocks.{n}.mlp.hidden"]), seen[f"blocks.{n}.mlp.out"])
    torch.testing.assert_close(model.norm(stream), seen["final"])


def test_the_head_of_section_4_is_a_block_of_its_own(tokens: Tensor) -> None:
    head = build("head")
    logits, seen = capture(head, tokens)
    torch.testing.assert_close(logits, head(tokens))
    shapes = {name.removeprefix("blocks.0."): tuple(value.shape) for name, value in seen.items()}
    each, pairs = (B, 1, T, C), (B, 1, T, T)
    assert shapes == {
        "embed": (B, T, C), "attn.q": each, "attn.k": each, "attn.v": each, "attn.scores": pairs, "attn.pattern": pairs,
        "attn.out": each, "attn.result": each, "resid": (B, T, C), "final": (B, T, C),
    }  # fmt: skip
    torch.testing.assert_close(seen["blocks.0.attn.pattern"] @ seen["blocks.0.attn.v"], seen["blocks.0.attn.out"])
    torch.testing.assert_close(seen["blocks.0.attn.q"][:, 0], head.attn.query(seen["embed"]))


@pytest.mark.parametrize("architecture", DECODERS)
def test_gradients_equal_finite_differences(architecture: str, tokens: Tensor) -> None:
    model = build(architecture).double()
    names = [name for name in capture_names(model) if not name.endswith(".mlp.experts")]  # integers

    def surprise(logits: Tensor) -> Tensor:
        return -logits[1, -1].log_softmax(dim=-1)[3]

    value, slopes = gradients(model, tokens, surprise, names)
    torch.testing.assert_close(value, surprise(model(tokens)).detach())
    assert not any(parameter.grad is not None for parameter in model.parameters())
    for name in names:
        direction = torch.randn(slopes[name].shape, dtype=torch.double, generator=torch.Generator().manual_seed(2))
        if name.endswith("scores"):
            direction = direction.tril()
        sides = []
        for change in (1e-6 * direction, -1e-6 * direction):
            with torch.no_grad(), edit(model, replace={name: change.__add__}):
                sides.append(surprise(model(tokens)))
        expected = (sides[0] - sides[1]) / 2e-6
        torch.testing.assert_close((slopes[name] * direction).sum(), expected, atol=1e-5, rtol=1e-5)


def test_what_the_objective_does_not_depend_on_has_gradient_0(model: GPT2, tokens: Tensor) -> None:
    _, slopes = gradients(model, tokens, lambda logits: logits[0, 3].sum(), ["blocks.1.resid", "blocks.2.attn.v"])
    assert not slopes["blocks.1.resid"][1].any()
    assert not slopes["blocks.1.resid"][0, 4:].any()
    assert slopes["blocks.1.resid"][0, :4].any()
    assert not slopes["blocks.2.attn.v"][0, :, 4:].any()


def test_gradients_of_a_model_whose_weights_are_frozen(model: GPT2, tokens: Tensor) -> None:
    _, expected = gradients(model, tokens, lambda logits: logits.square().mean(), ["embed", "blocks.1.attn.k"])
    model.requires_grad_(False)
    with torch.no_grad():
        _, found = gradients(model, tokens, lambda logits: logits.square().mean(), ["embed", "blocks.1.attn.k"])
    torch.testing.assert_close(found, expected)
    with pytest.raises(UserError, match=r"shape \(2, 9, 11\): it must be one number"):
        gradients(model, tokens, lambda logits: logits, ["embed"])


def test_only_what_is_named_is_captured(model: GPT2, tokens: Tensor) -> None:
    watched: list[bool] = []
    model.blocks[0].attn.inner.register_forward_hook(lambda module, *_: watched.append(module.hook is not None))
    _, activations = capture(model, tokens, ["final", "blocks.2.attn.k", "final"])
    assert list(activations) == ["final", "blocks.2.attn.k"]
    assert watched == [False]


def test_the_order_of_names_is_that_of_the_caller(model: GPT2, tokens: Tensor) -> None:
    assert list(capture(model, tokens, ("final", "embed"))[1]) == ["final", "embed"]


def test_no_dropout_and_no_gradients(tokens: Tensor) -> None:
    model = build("gpt2", dropout=0.5).train()
    logits, activations = capture(model, tokens)
    again, _ = capture(model, tokens)
    assert torch.equal(logits, again)
    assert not logits.requires_grad
    assert not any(value.requires_grad for value in activations.values())


def test_the_model_is_afterwards_as_it_was(model: GPT2, tokens: Tensor) -> None:
    model.train()
    model.blocks[1].mlp.eval()  # a part that is frozen stays so
    before = state(model)
    capture(model, tokens)
    assert state(model) == before


def test_the_model_is_as_it_was_even_after_an_error(model: GPT2) -> None:
    model.train()
    before = state(model)
    with pytest.raises(IndexError):
        capture(model, torch.full((1, 3), V))  # a token that the vocabulary does not have
    assert state(model) == before


def test_a_hook_of_the_caller_is_called_before_and_kept(model: GPT2, tokens: Tensor) -> None:
    seen: list[str] = []
    model.blocks[0].attn.inner.hook = lambda name, value: seen.append(name)
    steps = ["q", "k", "v", "scores", "pattern", "out"]
    capture(model, tokens)
    assert seen == steps
    model(tokens)
    assert seen == 2 * steps


def test_an_unknown_name_is_answered_with_the_nearest(model: GPT2, tokens: Tensor) -> None:
    with pytest.raises(UserError) as error:
        capture(model, tokens, ["blocks.1.attn.patern"])
    assert str(error.value) == (
        "nothing in this model has the name 'blocks.1.attn.patern': did you mean 'blocks.1.attn.pattern'? "
        "Known: embed, blocks.N.attn.q, blocks.N.attn.k, blocks.N.attn.v, blocks.N.attn.scores, blocks.N.attn.pattern, "
        "blocks.N.attn.out, blocks.N.attn.result, blocks.N.resid_mid, blocks.N.mlp.hidden, blocks.N.mlp.out, "
        "blocks.N.resid, final (N from 0 to 2)"
    )


def test_a_model_without_blocks_has_its_last_features(tokens: Tensor) -> None:
    assert capture_names(build("embedding")) == ["final"]
    with pytest.raises(UserError, match=r"Known: final$"):
        capture(build("embedding"), tokens, ["embed"])
