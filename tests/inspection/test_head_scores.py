"""Heads that are built by hand have the scores that their names promise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import UserError
from glassgpt.inspection.attention import KINDS, describe_head, head_kind, head_scores, heads_of, repeated_ids
from glassgpt.inspection.trace import trace
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s08_residual import ResidualModel

V, T = 11, 24
SHARP = 100.0  # the score of a key that matches: its weight is 1 within rounding


def induction_model() -> ResidualModel:
    """Two blocks of one head: the first copies the token before, the second looks for it (Olsson et al. 2022).

    The stream has three parts: the token (V), the token before (V) and the position (T), each one-hot.
    """
    C = 2 * V + T
    token, before, place = slice(0, V), slice(V, 2 * V), slice(2 * V, C)
    model = ResidualModel(LadderConfig(vocab_size=V, block_size=T, n_layer=2, n_head=1, n_embd=C))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.token_embedding.weight[:, token] = torch.eye(V)
        model.position_embedding.weight[:, place] = torch.eye(T)
        loud = SHARP * math.sqrt(C)  # attention divides by √D, and one head has D = C
        query, key, value = model.blocks[0].attn.qkv.weight.view(3, C, C)
        query[place, place] = loud * torch.eye(T).roll(1, dims=1).triu()  # position t asks for position t - 1
        key[place, place] = torch.eye(T)
        value[before, token] = torch.eye(V)
        model.blocks[0].attn.proj.weight.copy_(torch.eye(C))
        query, key, _ = model.blocks[1].attn.qkv.weight.view(3, C, C)
        query[token, token] = loud * torch.eye(V)  # a token asks for the positions whose token before is the same
        key[token, before] = torch.eye(V)
        query[2 * V, token] = loud  # and not for position 0, which had to copy itself
        key[2 * V, 2 * V] = -1.0
    return model


@pytest.mark.parametrize("seed", range(3))
def test_a_hand_built_induction_head_scores_1(seed: int) -> None:
    ids = torch.randint(V, (T // 2,), generator=torch.Generator().manual_seed(seed)).repeat(2).tolist()
    scores = head_scores(heads_of(trace(induction_model(), ids)), ids)
    assert float(scores.previous[0, 0]) == pytest.approx(1.0, abs=1e-3)
    assert float(scores.induction[1, 0]) == pytest.approx(1.0, abs=1e-3)
    assert float(scores.induction[0, 0]) < 0.3
    assert float(scores.previous[1, 0]) < 0.3
    assert describe_head(scores[0, 0]) == "previous token 100%"
    assert describe_head(scores[1, 0]) == "induction 100%"
    assert head_kind(scores[1, 0]) == ("induction", pytest.approx(1.0, abs=1e-3))


def test_the_text_on_which_heads_are_compared() -> None:
    model = induction_model()
    ids = repeated_ids(model)
    assert sorted(ids[:V]) == list(range(V)) and ids == 2 * ids[:V]
    assert ids == repeated_ids(model) != repeated_ids(model, seed=1)
    assert len(repeated_ids(model, length=4)) == 8
    scores = head_scores(heads_of(trace(model, ids)), ids)
    assert float(scores.induction[1, 0]) == pytest.approx(1.0, abs=1e-3)


def test_uniform_attention_has_entropy_1() -> None:
    model = induction_model()
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
    ids = list(range(V)) * 2
    scores = head_scores(heads_of(trace(model, ids)), ids)
    torch.testing.assert_close(scores.entropy, torch.ones(2, 1))
    expected = torch.tensor([1 / (t + 1) for t in range(1, 2 * V)]).mean().expand(2, 1)
    torch.testing.assert_close((scores.previous, scores.first), (expected, expected))
    # Each token of the second half has stood once before.
    expected = torch.tensor([1 / (t + 1) for t in range(V, 2 * V)]).mean().expand(2, 1)
    torch.testing.assert_close((scores.duplicate, scores.induction), (expected, expected))
    assert describe_head(scores[0, 0]) is None


def test_sharp_heads_of_each_kind() -> None:
    ids = [3, 1, 4, 3, 1, 4]
    for kind, keys in {
        "previous": [0, 0, 1, 2, 3, 4],
        "duplicate": [0, 1, 2, 0, 1, 2],
        "induction": [0, 1, 2, 1, 2, 3],
        "first": [0, 0, 0, 0, 0, 0],
    }.items():
        pattern = torch.eye(6)[keys]
        scores = head_scores(pattern, ids)
        assert float(getattr(scores, kind)) == 1.0
        assert float(scores.entropy) == 0.0
        assert describe_head(scores) == f"{KINDS[kind]} 100%"


def test_a_head_that_rests_on_the_first_token_is_named_after_what_it_finds() -> None:
    """An induction head has nothing to find in the first half of the text."""
    ids = [3, 1, 4, 3, 1, 4]
    scores = head_scores(torch.eye(6)[[0, 0, 0, 0, 2, 3]], ids)
    assert (float(scores.first), float(scores.induction)) == pytest.approx((3 / 5, 2 / 3))
    assert head_kind(scores) == ("induction", pytest.approx(2 / 3))
    scores = head_scores(torch.eye(6)[[0, 0, 0, 0, 0, 3]], ids)
    assert (float(scores.first), float(scores.induction)) == pytest.approx((4 / 5, 1 / 3))
    assert head_kind(scores) == ("first", pytest.approx(4 / 5))


def test_a_score_that_no_query_defines_is_0() -> None:
    scores = head_scores(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), [1, 2])
    assert (float(scores.duplicate), float(scores.induction)) == (0.0, 0.0)
    alone = head_scores(torch.ones(1, 1), [1])
    assert [float(value) for value in vars(alone).values()] == [0.0] * 6


@st.composite
def attention(draw: st.DrawFn) -> tuple[torch.Tensor, list[int]]:
    """Causal patterns of two layers of three heads, from sharp to uniform, and a text with repetitions."""
    length = draw(st.integers(1, 9))
    ids = draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
    spread = draw(st.sampled_from([0.0, 1.0, 10.0, 1000.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    scores = spread * torch.randn(2, 3, length, length, generator=generator)
    past = torch.ones(length, length, dtype=torch.bool).tril()
    return scores.masked_fill(~past, -torch.inf).softmax(dim=-1), ids


@given(attention())
@settings(max_examples=60, deadline=None)
def test_scores_lie_between_0_and_1_and_agree_with_a_loop(example: tuple[torch.Tensor, list[int]]) -> None:
    pattern, ids = example
    scores = head_scores(pattern, ids)
    expected = slow_scores(pattern[1, 2].tolist(), ids)
    for name, value in vars(scores).items():
        assert value.shape == (2, 3)
        assert (value >= 0).all() and (value <= 1 + 1e-5).all(), name
        assert float(value[1, 2]) == pytest.approx(expected[name], abs=1e-5), name


def slow_scores(pattern: list[list[float]], ids: list[int]) -> dict[str, float]:
    """The definitions, query by query."""
    found: dict[str, list[float]] = {name: [] for name in KINDS} | {"entropy": []}
    for t in range(1, len(ids)):
        row = pattern[t]
        found["previous"].append(row[t - 1])
        found["first"].append(row[0])
        found["entropy"].append(-sum(p * math.log(p) for p in row if p > 0) / math.log(t + 1))
        earlier = [s for s in range(t) if ids[s] == ids[t]]
        if earlier:
            found["duplicate"].append(sum(row[s] for s in earlier))
            found["induction"].append(sum(row[s + 1] for s in earlier))
    found["next"] = [row[t + 1] for t, row in enumerate(pattern[:-1])]
    return {name: sum(values) / len(values) if values else 0.0 for name, values in found.items()}


def test_a_pattern_of_another_text_is_refused() -> None:
    with pytest.raises(UserError, match="the pattern is of 3 tokens and the text has 2"):
        head_scores(torch.eye(3), [1, 2])
