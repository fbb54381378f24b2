"""Dead neurons are found where they were planted, and exciting texts are those of a search over every position."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_models import DECODERS, C, V, build

from glassgpt.errors import UserError
from glassgpt.inspection import neurons
from glassgpt.inspection.capture import capture, capture_names
from glassgpt.inspection.neurons import DEAD_BELOW, exciting_texts, neuron_summary

BLOCK, F = 12, 4 * C  # of all but gated MLPs
WITH_MLP = [name for name in DECODERS if "blocks.0.mlp.hidden" in capture_names(build(name))]


def text(length: int, seed: int = 0) -> list[int]:
    return torch.randint(V, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def hidden(model: nn.Module, ids: list[int], layer: int) -> Tensor:
    """The hidden units (T, F), one window at a time."""
    name = f"blocks.{layer}.mlp.hidden"
    passes = [capture(model, torch.tensor([ids[i : i + BLOCK]]), [name])[1][name][0] for i in range(0, len(ids), BLOCK)]
    return torch.cat(passes)


@pytest.mark.parametrize("architecture", WITH_MLP)
def test_planted_dead_neurons_are_found(architecture: str) -> None:
    model = build(architecture)
    last, F = len(model.blocks) - 1, model.blocks[0].mlp.down.in_features
    for layer, neuron, bias in ((0, 5, -1e3), (last, 7, 0.0), (last, F - 1, -1e3)):
        up = model.blocks[layer].mlp.up
        nn.init.zeros_(up.weight[neuron].data)
        if up.bias is not None:
            up.bias.data[neuron] = bias
    found = neuron_summary(model, [text(200), text(30, seed=1)])
    assert found.layers == tuple(range(last + 1)) and found.tokens == 230
    assert found.dead.shape == found.largest.shape == found.mean.shape == (last + 1, F)
    dead = set(map(tuple, found.dead.nonzero().tolist()))
    assert {(0, 5), (last, 7), (last, F - 1)} <= dead
    for layer in range(last + 1):
        values = torch.cat([hidden(model, text(200), layer), hidden(model, text(30, seed=1), layer)])
        torch.testing.assert_close(found.largest[layer], values.amax(dim=0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.mean[layer], values.mean(dim=0), atol=1e-4, rtol=1e-4)
        assert found.dead[layer].tolist() == (values.abs().amax(dim=0) <= DEAD_BELOW).tolist()
        torch.testing.assert_close(found.active[layer], (values > 0).float().mean(dim=0))
        expected = torch.tensor([sparseness(row) for row in values.T.tolist()])
        torch.testing.assert_close(found.selectivity[layer], expected, atol=1e-4, rtol=1e-4)


def sparseness(activations: list[float]) -> float:
    """The formula of Vinje and Gallant 2000, term by term, with negative activations as 0."""
    r, n = [max(0.0, value) for value in activations], len(activations)
    if not any(r):
        return 0.0
    return (1 - (sum(r) / n) ** 2 / sum(value**2 / n for value in r)) / (1 - 1 / n)


def test_selectivity_is_0_on_all_tokens_and_1_on_a_single_one() -> None:
    model = build("gpt2")
    nn.init.zeros_(model.position_embedding.weight)
    nn.init.zeros_(model.blocks[0].attn.proj.weight)
    mlp = model.blocks[0].mlp
    nn.init.zeros_(mlp.up.weight)
    mlp.up.bias.data[:] = 2.0
    mlp.up.bias.data[1] = -20.0
    ids = [3] * 40
    ids[17] = 5
    stream = capture(model, torch.tensor([[5, 3]]), ["blocks.0.resid_mid"])[1]["blocks.0.resid_mid"][0]
    rare, common = model.blocks[0].norm2(stream).detach()
    direction = rare - common
    mlp.up.weight.data[2] = 100 * direction
    mlp.up.bias.data[2] = -50 * direction @ (rare + common)
    found = neuron_summary(model, [ids])
    assert found.selectivity[0, :3].tolist() == pytest.approx([0, 0, 1], abs=1e-5)
    assert found.active[0, :3].tolist() == pytest.approx([1, 0, 1 / 40])
    assert neuron_summary(model, [[5]]).selectivity[0].tolist() == [0.0] * F  # one token: nothing to compare


def test_a_shorter_window_gives_shorter_contexts() -> None:
    model, ids = build("gpt2"), text(40)
    found = neuron_summary(model, [ids], window=5)
    expected = neuron_summary(model, [ids[start : start + 5] for start in range(0, 40, 5)])
    torch.testing.assert_close(vars(found), vars(expected))
    for window in (0, BLOCK + 1):
        with pytest.raises(UserError, match=f"window = {window} is out of range: it must be from 1 to block_size = 12"):
            neuron_summary(model, [ids], window=window)


def test_a_neuron_is_dead_only_if_it_is_on_every_token() -> None:
    """Also if it is only ever negative, as GELU is between -3 and 0; and one token in a long text is enough."""
    model = build("gpt2")
    up = model.blocks[0].mlp.up
    nn.init.zeros_(up.weight)
    up.bias.data[:] = -20.0
    up.bias.data[1] = -0.5  # active, at -0.15
    up.bias.data[2] = -3.2  # -0.0019
    up.bias.data[3] = -3.5  # -0.0006
    found = neuron_summary(model, [text(40)])
    assert found.dead[0].tolist() == [neuron not in (1, 2) for neuron in range(F)]
    assert found.largest[0, 1].item() == pytest.approx(-0.1543, abs=1e-3)
    nn.init.zeros_(model.position_embedding.weight)
    ids, rare = [3] * 40, 5
    ids[37] = rare
    direction = model.blocks[0].norm2(
        capture(model, torch.tensor([[rare]]), ["blocks.0.resid_mid"])[1]["blocks.0.resid_mid"]
    )
    up.weight.data[4] = 10 * direction[0, 0].detach()
    assert not neuron_summary(model, [ids]).dead[0, 4]


def test_windows_in_batches_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = build("decoder"), text(100)
    batched = neuron_summary(model, [ids])
    monkeypatch.setattr(neurons, "_TOKENS_PER_PASS", 2 * BLOCK + 1)
    pairs = neuron_summary(model, [ids])
    torch.testing.assert_close(pairs.largest, batched.largest)
    torch.testing.assert_close(pairs.mean, batched.mean)


def by_search(values: list[float], k: int, reach: int) -> list[int]:
    """Takes the largest activation that is farther than `reach` from those taken, again and again."""
    chosen: list[int] = []
    while len(chosen) < k:
        free = [t for t in range(len(values)) if all(abs(t - other) > reach for other in chosen)]
        if not free:
            break
        chosen.append(max(free, key=lambda t: (values[t], -t)))
    return chosen


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(1, 60),
    k=st.integers(1, 8),
    reach=st.integers(0, 9),
    seed=st.integers(0, 5),
    layer=st.integers(0, 2),
)
def test_exciting_texts_are_those_of_a_search(length: int, k: int, reach: int, seed: int, layer: int) -> None:
    model, ids, neuron = build("gpt3").double(), text(length, seed), 11
    values = hidden(model, ids, layer)[:, neuron].float()
    found = exciting_texts(model, ids, layer, neuron, k, reach=reach)
    assert [one.position for one in found] == by_search(values.tolist(), k, reach)
    for one in found:
        assert (one.start, one.stop) == (max(0, one.position - reach), min(length, one.position + reach + 1))
        torch.testing.assert_close(one.values, values[one.start : one.stop])
        assert one.value == pytest.approx(values[one.position].item(), rel=1e-5)


def test_of_equal_activations_the_first_counts() -> None:
    model = build("gpt2")
    nn.init.zeros_(model.blocks[0].mlp.up.weight)
    found = exciting_texts(model, text(30), 0, 2, k=3, reach=9)
    assert [one.position for one in found] == [0, 10, 20]


def test_the_mode_of_the_model_is_restored() -> None:
    model = build("gpt2", dropout=0.5).train()
    first, second = neuron_summary(model, [text(20)]), neuron_summary(model, [text(20)])
    assert torch.equal(first.mean, second.mean)
    assert model.training and not model.blocks[0].mlp.down._forward_pre_hooks


@pytest.mark.parametrize(
    ("architecture", "layer", "neuron", "options", "sentence"),
    [
        ("bigram", 0, 0, {}, "this model has no MLP, so it has no neurons"),
        ("multihead", 0, 0, {}, "this model has no MLP, so it has no neurons"),
        ("gpt2", 3, 0, {}, "there is no MLP in block 3: this model has 3 blocks, counted from 0"),
        ("gpt2", -1, 0, {}, "there is no MLP in block -1: this model has 3 blocks, counted from 0"),
        ("gpt2", 0, F, {}, "there is no neuron 64 in block 0: it has 64 neurons, counted from 0"),
        ("gpt2", 0, -1, {}, "there is no neuron -1 in block 0: it has 64 neurons, counted from 0"),
        ("gpt2", 0, 0, {"ids": []}, "the text is empty: it must have at least one token"),
        ("gpt2", 0, 0, {"ids": [V]}, "token id 11 is outside the model's vocabulary of 11 ids"),
        ("gpt2", 0, 0, {"k": 0}, "k = 0 is out of range: it must be at least 1"),
        ("gpt2", 0, 0, {"reach": -1}, "reach = -1 is out of range: it must be at least 0"),
    ],
)
def test_bad_input_is_answered_with_a_sentence(
    architecture: str, layer: int, neuron: int, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        exciting_texts(build(architecture), **{"ids": text(9), "layer": layer, "neuron": neuron} | options)
    assert str(error.value) == sentence


def test_a_summary_needs_neurons_and_tokens() -> None:
    with pytest.raises(UserError, match="this model has no MLP, so it has no neurons"):
        neuron_summary(build("averaging"), [text(5)])
    with pytest.raises(UserError, match="the texts are empty: they must have at least one token"):
        neuron_summary(build("gpt2"), [[], []])
    with pytest.raises(UserError, match="token id 11 is outside the model's vocabulary of 11 ids"):
        neuron_summary(build("gpt2"), [[1], [V]])
