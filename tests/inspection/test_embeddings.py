"""Neighbours by brute force, and the map by numpy's singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import DECODERS, C, V, build

from glassgpt.errors import UserError
from glassgpt.inspection.embeddings import embedding_map, neighbours
from glassgpt.models.gpt2 import GPT2, GPT2Config

EMBEDDED = [name for name in DECODERS if hasattr(build(name), "token_embedding")]


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(a * b) / np.sqrt(sum(a * a)) / np.sqrt(sum(b * b)))


@pytest.mark.parametrize("architecture", EMBEDDED)
def test_neighbours_are_those_of_brute_force(architecture: str) -> None:
    model = build(architecture)
    rows = model.token_embedding.weight.detach().double().numpy()
    for id in range(V):
        found = neighbours(model, id, k=4)
        others = {other: similarity(rows[id], rows[other]) for other in range(V) if other != id}
        expected = sorted(others, key=lambda other: -others[other])[:4]
        assert found.ids.tolist() == expected
        assert found.similarities.tolist() == pytest.approx([others[other] for other in expected], abs=1e-6)


def test_rows_that_pad_the_embedding_are_nobodys_neighbours() -> None:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=7, block_size=4, n_layer=1, n_head=1, n_embd=8, padded_vocab_size=16))
    model.token_embedding.weight.data[9] = model.token_embedding.weight.data[2]
    found = neighbours(model, 2, k=100)
    assert sorted(found.ids.tolist()) == [0, 1, 3, 4, 5, 6]
    assert len(embedding_map(model).points) == 7


def test_an_embedding_of_zeros_is_like_no_other() -> None:
    model = build("gpt2")
    model.token_embedding.weight.data[3] = 0.0
    assert neighbours(model, 3).similarities.tolist() == [0.0] * 10


@settings(max_examples=30, deadline=None)
@given(ids=st.none() | st.lists(st.integers(0, V - 1), min_size=3, max_size=30))
def test_the_map_is_that_of_the_singular_value_decomposition(ids: list[int] | None) -> None:
    model = build("gpt2")
    rows = model.token_embedding.weight.detach().double().numpy()[ids if ids is not None else slice(None)]
    left, scales, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    if scales[1] < 1e-9:  # fewer than three different ids have no second axis
        return
    found = embedding_map(model, ids)
    expected = left[:, :2] * scales[:2]
    for axis in range(2):
        sign = np.sign(expected[:, axis] @ found.points[:, axis].double().numpy())
        assert found.points[:, axis].tolist() == pytest.approx((sign * expected[:, axis]).tolist(), abs=1e-5)
    assert found.shares.tolist() == pytest.approx((scales[:2] ** 2 / (scales**2).sum()).tolist(), abs=1e-6)


def test_the_map_is_the_same_at_every_call_and_its_farthest_point_is_positive() -> None:
    model = build("gpt2")
    points = embedding_map(model).points
    assert torch.equal(points, embedding_map(model).points)
    for axis in points.T:
        assert axis.max() == axis.abs().max()
    model.token_embedding.weight.data.neg_()
    torch.testing.assert_close(embedding_map(model).points.abs(), points.abs())


def test_the_axes_of_another_checkpoint() -> None:
    model, later = build("gpt2"), build("gpt2")
    later.token_embedding.weight.data += 0.1 * torch.randn(V, C, generator=torch.Generator().manual_seed(3))
    ids = [1, 3, 4, 8]  # fewer than channels
    for chosen in (None, ids):
        of_later = embedding_map(later, chosen)
        assert torch.equal(embedding_map(later, chosen, axes_of=later).points, of_later.points)
        rows, others = (
            m.token_embedding.weight.detach().double().numpy()[chosen or slice(None)] for m in (model, later)
        )
        axes = np.linalg.svd(others - others.mean(axis=0), full_matrices=False)[2][:2].T
        signs = np.sign(((others - others.mean(axis=0)) @ axes * of_later.points.numpy()).sum(axis=0))
        expected = (rows - rows.mean(axis=0)) @ axes * signs
        found = embedding_map(model, chosen, axes_of=later)
        np.testing.assert_allclose(found.points.numpy(), expected, atol=1e-6)
        of_all = ((rows - rows.mean(axis=0)) ** 2).sum()
        np.testing.assert_allclose(found.shares.numpy(), (expected**2).sum(axis=0) / of_all, atol=1e-6)
    wide = GPT2(GPT2Config(vocab_size=V, block_size=4, n_layer=1, n_head=1, n_embd=2))
    with pytest.raises(UserError, match=r"the axes are of embeddings with 2 channels, and this model has \d+: take"):
        embedding_map(model, axes_of=wide)


def test_axes_without_a_difference_are_0() -> None:
    model = build("gpt2")
    alone, pair = embedding_map(model, [5, 5]), embedding_map(model, [2, 7])
    assert not alone.points.any() and not alone.shares.any()
    distance = (model.token_embedding.weight[2] - model.token_embedding.weight[7]).norm().item()
    assert sorted(pair.points[:, 0].tolist()) == pytest.approx([-distance / 2, distance / 2], abs=1e-5)
    torch.testing.assert_close(pair.points[:, 1], torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(pair.shares, torch.tensor([1.0, 0.0]))


def test_an_embedding_of_one_channel_has_one_axis() -> None:
    model = GPT2(GPT2Config(vocab_size=V, block_size=4, n_layer=1, n_head=1, n_embd=1))
    found = embedding_map(model)
    assert found.points.shape == (V, 2)
    assert not found.points[:, 1].any() and found.shares.tolist() == [1.0, 0.0]


def test_bad_input_is_answered_with_a_sentence() -> None:
    model = build("gpt2")
    with pytest.raises(
        UserError, match=r"^this model has no token embedding: its 11 tokens have no vectors to compare$"
    ):
        neighbours(build("bigram"), 1)
    with pytest.raises(UserError, match="this model has no token embedding"):
        embedding_map(build("bigram"))
    with pytest.raises(UserError, match="token id 11 is outside the model's vocabulary of 11 ids"):
        neighbours(model, V)
    with pytest.raises(UserError, match="token id 11 is outside"):
        embedding_map(model, [V])
    with pytest.raises(UserError, match="k = 0 is out of range: it must be at least 1"):
        neighbours(model, 1, k=0)
    with pytest.raises(UserError, match="there are no tokens to put on the map"):
        embedding_map(model, [])
