"""The attention primitive: fused and watched are one function, causal, with and without a cache."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glassgpt.models.attention import Attention, causal_mask
from glassgpt.models.block_masks import BlockMasks
from glassgpt.models.context import Documents


def random_qkv(B: int, H: int, T: int, S: int, D: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, H, length, D, generator=generator) for length in (T, S, S))
    return q, k, v


def by_loops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as the formula says it, number by number: the independent reference."""
    B, H, T, D = q.shape
    S = k.size(2)
    out = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                seen = S - T + t + 1
                scores = [math.fsum((q[b, h, t] * k[b, h, s]).tolist()) / math.sqrt(D) for s in range(seen)]
                weights = [math.exp(score - max(scores)) for score in scores]
                for s in range(seen):
                    out[b, h, t] += weights[s] / math.fsum(weights) * v[b, h, s]
    return out


def ignore(name: str, value: Tensor) -> None:
    """A hook that only makes attention compute step by step."""


@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(0, 4), st.integers(1, 4))
@settings(max_examples=20)
def test_both_paths_are_the_formula(B: int, H: int, T: int, before: int, D: int) -> None:
    q, k, v = random_qkv(B, H, T, T + before, D)
    attention = Attention()
    expected = by_loops(q, k, v)
    torch.testing.assert_close(attention(q, k, v), expected, atol=1e-5, rtol=0)
    attention.hook = ignore
    torch.testing.assert_close(attention(q, k, v), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("before", [0, 7])
def test_both_paths_have_the_same_gradients(before: int) -> None:
    attention = Attention()
    gradients = []
    for hook in (None, ignore):
        attention.hook = hook
        inputs = [part.requires_grad_() for part in random_qkv(2, 3, 8, 8 + before, 4)]
        attention(*inputs).square().sum().backward()
        gradients.append([part.grad for part in inputs])
    for fused, watched in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, watched, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hook", [None, ignore], ids=["fused", "watched"])
def test_the_last_queries_with_all_keys_are_the_end_of_the_whole(hook: object) -> None:
    q, k, v = random_qkv(2, 2, 9, 9, 4)
    attention = Attention()
    attention.hook = hook  # type: ignore[assignment]
    whole = attention(q, k, v)
    for T in (1, 4, 9):
        torch.testing.assert_close(attention(q[:, :, -T:], k, v), whole[:, :, -T:], atol=1e-6, rtol=1e-5)


def test_the_watcher_sees_every_step_by_name() -> None:
    q, k, v = random_qkv(1, 2, 3, 5, 4)
    seen: dict[str, Tensor] = {}
    attention = Attention()
    attention.hook = seen.__setitem__
    out = attention(q, k, v)
    assert list(seen) == ["q", "k", "v", "scores", "pattern", "out"]
    assert seen["q"] is q
    assert seen["out"] is out
    torch.testing.assert_close(seen["pattern"].sum(dim=-1), torch.ones(1, 2, 3))
    assert torch.equal(seen["pattern"] > 0, causal_mask(3, 5, q.device).expand(1, 2, 3, 5))
    assert torch.equal(seen["scores"].isinf(), seen["pattern"] == 0)


def test_the_mask_lets_the_last_queries_see_the_first_keys() -> None:
    mask = causal_mask(2, 4, torch.device("cpu"))
    assert mask.tolist() == [[True, True, True, False], [True, True, True, True]]


def test_dropout_acts_in_training_only() -> None:
    q, k, v = random_qkv(1, 1, 6, 6, 4)
    attention = Attention(dropout=0.5)
    plain = Attention()(q, k, v)
    assert torch.equal(attention.eval()(q, k, v), plain)
    attention.train()
    for hook in (None, ignore):
        attention.hook = hook
        torch.manual_seed(0)
        assert not torch.allclose(attention(q, k, v), plain)


def test_it_has_no_state_of_its_own() -> None:
    assert Attention(dropout=0.1).state_dict() == {}


def in_float64(q: Tensor, k: Tensor, v: Tensor, *, scale: float, allowed: Tensor, bias: Tensor | None) -> Tensor:
    """Each query by itself, over the keys that it may look at, in float64: the independent reference."""
    B, H, T, _ = q.shape
    shared = H // k.size(1)
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b, h, t in torch.cartesian_prod(*map(torch.arange, (B, H, T))).tolist():
        keys = allowed[b, h, t].nonzero().flatten()
        scores = scale * (k[b, h // shared, keys].double() @ q[b, h, t].double())
        if bias is not None:
            scores = scores + bias[b, h, t, keys].double()
        weights = (scores - scores.max()).exp()
        out[b, h, t] = (weights / weights.sum()) @ v[b, h // shared, keys].double()
    return out


@given(
    st.integers(1, 2), st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 2), (3, 1)]), st.integers(1, 5), st.integers(0, 3),
    st.booleans(), st.booleans(), st.booleans(), st.sampled_from([None, 0.3, 1.0]), st.integers(0, 10_000),
)  # fmt: skip
@settings(max_examples=60)
def test_every_option_is_the_formula_on_both_paths(
    B: int, heads: tuple[int, int], T: int, before: int, causal: bool, masked: bool, biased: bool,
    scale: float | None, seed: int,
) -> None:  # fmt: skip
    (H, G), S, D = heads, T + before, 4
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, n, length, D, generator=draw) for n, length in ((H, T), (G, S), (G, S)))
    allowed = causal_mask(T, S, q.device) if causal else torch.ones(T, S, dtype=torch.bool)
    mask = None
    if masked:
        mask = (torch.rand(B, 1, T, S, generator=draw) < 0.5) | (torch.arange(S) == 0)  # each query has a key
        allowed = mask
    bias = torch.randn(H, T, S, generator=draw) if biased else None
    expected = in_float64(
        q, k, v, scale=D**-0.5 if scale is None else scale,
        allowed=allowed.expand(B, H, T, S), bias=None if bias is None else bias.expand(B, H, T, S),
    )  # fmt: skip
    attention = Attention(causal=causal, scale=scale)
    for hook in (None, ignore):
        attention.hook = hook
        torch.testing.assert_close(attention(q, k, v, mask, bias).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hook", [None, ignore], ids=["fused", "watched"])
def test_a_bias_learns(hook: object) -> None:
    q, k, v = random_qkv(1, 2, 4, 4, 4)
    bias = torch.zeros(2, 4, 4, requires_grad=True)
    attention = Attention()
    attention.hook = hook  # type: ignore[assignment]
    attention(q, k, v, None, bias)[0, :, 1].square().sum().backward()
    assert bias.grad is not None
    assert bias.grad[:, 1, :2].abs().min() > 0
    assert not bias.grad[:, 1, 2:].any()  # the future
    assert not bias.grad[:, [0, 2, 3]].any()  # other queries


def with_sinks(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, allowed: Tensor, bias: Tensor | None) -> Tensor:
    """The formula in float64: each head's sink is one more score in the softmax, whose weight is dropped."""
    q, k, v = q.double(), k.double().repeat_interleave(len(sinks) // k.size(1), 1), v.double()
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    scores = (scores if bias is None else scores + bias.double()).masked_fill(~allowed, -math.inf)
    weights = scores.exp() / (scores.exp().sum(dim=-1, keepdim=True) + sinks.double().exp().view(-1, 1, 1))
    return weights @ v.repeat_interleave(len(sinks) // v.size(1), 1)


@given(
    st.integers(1, 2), st.sampled_from([(4, 4), (4, 2), (3, 1)]), st.integers(1, 5), st.integers(0, 3),
    st.booleans(), st.booleans(), st.booleans(), st.integers(0, 10_000),
)  # fmt: skip
@settings(max_examples=60)
def test_sinks_are_the_formula_and_learn_on_both_paths(
    B: int, heads: tuple[int, int], T: int, before: int, causal: bool, masked: bool, biased: bool, seed: int
) -> None:
    (H, G), S, D = heads, T + before, 4
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, n, length, D, generator=draw) for n, length in ((H, T), (G, S), (G, S)))
    sinks, bias = torch.randn(H, generator=draw), torch.randn(H, T, S, generator=draw) if biased else None
    allowed = causal_mask(T, S, q.device) if causal else torch.ones(T, S, dtype=torch.bool)
    mask = None
    if masked:
        mask = allowed = torch.rand(B, 1, T, S, generator=draw) < 0.5  # a query may have no key: its output is 0
    outside = torch.randn(B, H, T, D, generator=draw)

    def gradients(out: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad((out * outside.to(out.dtype)).sum(), inputs)

    inputs = [part.requires_grad_() for part in (q, k, v, sinks, *([] if bias is None else [bias]))]
    expected = with_sinks(q, k, v, sinks, allowed, bias)
    expected_gradients = gradients(expected, inputs)
    attention = Attention(causal=causal)
    for hook in (None, ignore):
        attention.hook = hook
        out = attention(q, k, v, mask, bias, sinks)
        torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
        for found, wanted in zip(gradients(out, inputs), expected_gradients, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_watched_pattern_lacks_the_weight_of_the_sink() -> None:
    q, k, v = random_qkv(1, 2, 3, 5, 4)
    seen: dict[str, Tensor] = {}
    attention = Attention()
    attention.hook = seen.__setitem__
    attention(q, k, v, sinks=torch.tensor([-torch.inf, 1.0]))
    assert seen["pattern"].shape == seen["scores"].shape == (1, 2, 3, 5)
    sums = seen["pattern"].sum(dim=-1)
    torch.testing.assert_close(sums[:, 0], torch.ones(1, 3))  # a sink of -∞ takes nothing
    expected = 1 - 1 / (1 + seen["scores"][:, 1].double().sub(1).exp().sum(dim=-1))
    torch.testing.assert_close(sums[:, 1].double(), expected, atol=1e-6, rtol=0)


def test_sinks_with_a_block_mask_are_those_with_its_dense_mask() -> None:
    q, k, v = random_qkv(1, 2, 8, 8, 16)
    tokens, sinks = torch.tensor([[5, 0, 3, 4, 0, 6, 7, 8]]), torch.randn(2)
    dense, blocks = Documents(tokens, 0, 3), BlockMasks(tokens, 0, 3)
    masks = [context.append(0, k, v, window=3)[2] for context in (dense, blocks)]
    found = [Attention()(q, k, v, mask, sinks=sinks) for mask in masks]
    torch.testing.assert_close(found[0], found[1])
