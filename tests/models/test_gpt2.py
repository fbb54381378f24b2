"""GPT-2: its sizes, its initialisation, and that cached, watched and plain passes are one function."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.models import ARCHITECTURES
from glassgpt.models.context import KVCache
from glassgpt.models.gpt2 import GPT2, GPT2_SIZES, GPT2Config
from glassgpt.models.gpt3 import GPT3Config

SMALL = GPT2Config(vocab_size=53, block_size=16, n_layer=3, n_head=2, n_embd=12)


def awake(config: GPT2Config = SMALL) -> GPT2:
    """A model in evaluation mode whose weights are so large that every part of it matters."""
    torch.manual_seed(0)
    model = GPT2(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def some_tokens(B: int = 2, T: int = SMALL.block_size, seed: int = 1) -> Tensor:
    return torch.randint(SMALL.vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "n_params"),
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)],
)
def test_the_four_sizes_have_the_parameters_of_the_paper(size: str, n_params: int) -> None:
    with torch.device("meta"):
        model = GPT2(GPT2_SIZES[size])
    assert sum(parameter.numel() for parameter in model.parameters()) == n_params


def test_weights_start_as_those_of_gpt2() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=500, block_size=100, n_layer=8, n_head=4, n_embd=128)
    for name, parameter in GPT2(config).named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            into_residual = name.endswith(("attn.proj.weight", "mlp.down.weight"))
            std = 0.02 / math.sqrt(2 * 8) if into_residual else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.03), name
            assert abs(parameter.mean().item()) < 0.05 * std, name


def test_the_residual_stream_keeps_its_variance() -> None:
    """Which is what the smaller initialisation of the projections is for: depth does not make the output larger."""
    spread = []
    for n_layer in (2, 24):
        torch.manual_seed(0)
        model = GPT2(GPT2Config(vocab_size=50, block_size=16, n_layer=n_layer, n_head=2, n_embd=64))
        stream: list[Tensor] = []
        model.norm.register_forward_pre_hook(lambda _, inputs, stream=stream: stream.append(inputs[0]))
        model(some_tokens(B=4) % 50)
        spread.append(stream[0].std().item())
    assert spread[1] == pytest.approx(spread[0], rel=0.1)


def test_the_head_is_the_token_embedding() -> None:
    model = awake()
    assert not any("head" in name for name in model.state_dict())
    features = torch.randn(1, 2, 12)
    before = model.head(features)
    with torch.no_grad():
        model.token_embedding.weight[7] += 1.0
    changed = (model.head(features) != before).any(dim=(0, 1))
    assert changed.nonzero().flatten().tolist() == [7]


def test_logits_are_the_head_of_the_features() -> None:
    model, tokens = awake(), some_tokens()
    assert model(tokens).shape == (2, 16, 53)
    assert torch.equal(model(tokens), model.head(model.features(tokens)))


def test_the_watched_path_equals_the_fused() -> None:
    model, tokens = awake(), some_tokens()
    fused = model(tokens)
    for block in model.blocks:
        block.attn.inner.hook = lambda name, value: None
    torch.testing.assert_close(model(tokens), fused, atol=1e-5, rtol=0)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=16))
@settings(max_examples=10)
def test_cached_logits_equal_those_of_one_pass(chunks: list[int]) -> None:
    model = awake()
    chunks = [n for i, n in enumerate(chunks) if sum(chunks[: i + 1]) <= SMALL.block_size]
    tokens = some_tokens(T=sum(chunks))
    cache = KVCache(SMALL.block_size)
    with torch.no_grad():
        parts = [model(part, context=cache) for part in tokens.split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), atol=1e-5, rtol=1e-5)
    assert cache.length == sum(chunks)


def test_a_prefill_and_single_steps_equal_one_pass() -> None:
    model, tokens = awake(), some_tokens(B=3)
    cache = KVCache(SMALL.block_size)
    with torch.no_grad():
        whole = model(tokens)
        torch.testing.assert_close(model(tokens[:, :10], context=cache), whole[:, :10], atol=1e-5, rtol=1e-5)
        for t in range(10, 16):
            step = model(tokens[:, t : t + 1], context=cache)
            torch.testing.assert_close(step[:, 0], whole[:, t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", [0, 7, 15])
def test_no_token_sees_the_future(t: int) -> None:
    model, tokens = awake(), some_tokens(B=1)
    other = tokens.clone()
    other[:, t] = (other[:, t] + 1) % SMALL.vocab_size
    same = (model(tokens) == model(other)).all(dim=-1).flatten().tolist()
    assert same == [position < t for position in range(16)]


def test_no_gradient_comes_from_the_future() -> None:
    model = awake()
    inputs: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model(some_tokens(B=1))[0, 5].sum().backward(inputs=inputs)
    (gradient,) = (x.grad for x in inputs)
    assert gradient is not None
    assert gradient[0].abs().sum(dim=-1).ne(0).tolist() == [position <= 5 for position in range(16)]


def test_dropout_acts_in_training_only() -> None:
    model = awake(GPT2Config(vocab_size=53, block_size=16, n_layer=1, n_head=2, n_embd=12, dropout=0.3))
    tokens = some_tokens()
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"n_embd": 10, "n_head": 4}, r"n_embd = 10 is not divisible by model\.n_head = 4: try n_embd = 8 or 12"),
        ({"n_layer": 0}, r"n_layer = 0 is out of range"),
        ({"dropout": 1.0}, r"dropout = 1\.0 is out of range"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, float], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        GPT2Config(**sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["gpt2", "gpt3"])
def test_padding_adds_rows_and_no_logits(architecture: str) -> None:
    found, tokens = ARCHITECTURES[architecture], some_tokens(T=7)
    sizes = {"block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 12}
    torch.manual_seed(0)
    wide = found.model(found.config(64, **sizes))  # as a padded vocabulary was said before there was padded_vocab_size
    torch.manual_seed(0)
    padded = found.model(found.config(53, **sizes, padded_vocab_size=64))
    for (name, theirs), (ours_name, ours) in zip(wide.named_parameters(), padded.named_parameters(), strict=True):
        assert name == ours_name and torch.equal(theirs, ours)
    assert torch.equal(padded(tokens), wide(tokens)[..., :53])


@pytest.mark.parametrize("config", [GPT2Config, GPT3Config])
def test_fewer_rows_than_ids_are_refused(config: type[GPT2Config]) -> None:
    with pytest.raises(UserError, match=r"model\.padded_vocab_size = 52 .* at least model\.vocab_size = 53"):
        config(vocab_size=53, padded_vocab_size=52)
