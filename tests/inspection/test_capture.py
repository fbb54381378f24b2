"""What is captured is what the model computes, and capturing leaves no trace in the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.inspection.capture import capture, capture_names
from glassgpt.models import ARCHITECTURES
from glassgpt.models.gpt2 import GPT2

B, T, C, H, V = 2, 9, 16, 4, 11


def build(architecture: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    found = ARCHITECTURES[architecture]
    model = found.model(found.config(vocab_size=V, block_size=12, n_layer=3, n_head=H, n_embd=C, dropout=dropout))
    for parameter in model.parameters():  # away from zero heads and tiny scores, which would hide a mistake
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> GPT2:
    built = build("gpt2")
    assert isinstance(built, GPT2)
    return built


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_a_watched_pass_equal_the_fused(architecture: str, tokens: Tensor) -> None:
    model = build(architecture).double()  # without norms the logits are large: float32 would need a tolerance to match
    logits, activations = capture(model, tokens)
    torch.testing.assert_close(logits, model(tokens), atol=1e-10, rtol=1e-10)
    assert list(activations) == capture_names(model)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_block_takes_the_stream_to_the_next(architecture: str, tokens: Tensor) -> None:
    model = build(architecture)
    logits, activations = capture(model, tokens)
    stream = activations.get("embed")
    for n, block in enumerate(model.blocks):
        stream = block(stream, None)
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
        "blocks.1.resid": (B, T, C),
        "final": (B, T, C),
    }  # fmt: skip
    assert len(activations) == 2 + 3 * 7


def test_patterns_are_causal_distributions(model: GPT2, tokens: Tensor) -> None:
    _, activations = capture(model, tokens)
    for n in range(3):
        pattern = activations[f"blocks.{n}.attn.pattern"]
        torch.testing.assert_close(pattern.sum(dim=-1), torch.ones(B, H, T))
        assert (pattern.triu(diagonal=1) == 0).all()
        assert (pattern.tril()[..., 1:, :1] > 0).all()
        assert (activations[f"blocks.{n}.attn.scores"].triu(diagonal=1)[..., 0, 1:] == -torch.inf).all()
        torch.testing.assert_close(pattern @ activations[f"blocks.{n}.attn.v"], activations[f"blocks.{n}.attn.out"])


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


def state(model: GPT2) -> list[tuple[bool, int, int, object]]:
    return [
        (module.training, len(module._forward_hooks), len(module._forward_pre_hooks), getattr(module, "hook", None))
        for module in model.modules()
    ]


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


def test_a_watcher_of_the_caller_is_put_back(model: GPT2, tokens: Tensor) -> None:
    seen: list[str] = []
    model.blocks[0].attn.inner.hook = lambda name, value: seen.append(name)
    capture(model, tokens)
    assert seen == []
    model(tokens)
    assert seen == ["q", "k", "v", "scores", "pattern", "out"]


def test_an_unknown_name_is_answered_with_the_nearest(model: GPT2, tokens: Tensor) -> None:
    with pytest.raises(UserError) as error:
        capture(model, tokens, ["blocks.1.attn.patern"])
    assert str(error.value) == (
        "nothing in this model has the name 'blocks.1.attn.patern': did you mean 'blocks.1.attn.pattern'? "
        "Known: embed, blocks.N.attn.q, blocks.N.attn.k, blocks.N.attn.v, blocks.N.attn.scores, blocks.N.attn.pattern, "
        "blocks.N.attn.out, blocks.N.resid, final (N from 0 to 2)"
    )


def test_a_model_without_blocks_has_its_last_features(tokens: Tensor) -> None:
    assert capture_names(build("embedding")) == ["final"]
    with pytest.raises(UserError, match=r"Known: final$"):
        capture(build("embedding"), tokens, ["embed"])
