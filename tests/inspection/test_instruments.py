"""The instruments of one forward pass give what transformers, or a model with other weights, computes independently."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import DECODERS, C, H, T, V, build

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.inspection.ablation import effect, head_effects
from glassgpt.inspection.attention import heads_of, score_terms
from glassgpt.inspection.attribution import attribute, attribute_neuron
from glassgpt.inspection.capture import capture_names
from glassgpt.inspection.edit import edit
from glassgpt.inspection.lens import logit_lens, streams
from glassgpt.inspection.trace import LARGE, Trace, attention_blocks, trace
from glassgpt.interop.huggingface import load_hf
from glassgpt.models.gpt2 import GPT2

IDS = torch.randint(V, (T,), generator=torch.Generator().manual_seed(1)).tolist()
WITH_STREAM = (
    "embedding",
    "residual",
    "layernorm",
    "decoder",
    "gpt2",
    "gpt_oss",
    "gpt3",
    "modern",
    "llama",
    "qwen3",
)  # blocks add to it, or there are none


class Peer:
    """GPT-2 of transformers, with random weights that all matter, and ours with the same."""

    def __init__(self, folder: Path) -> None:
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        sizes = {"vocab_size": 97, "n_positions": 24, "n_layer": 3, "n_head": 3, "n_embd": 24}
        config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, attn_implementation="eager")
        self.theirs: Any = transformers.GPT2LMHeadModel(config).eval()
        for name, parameter in self.theirs.named_parameters():
            nn.init.normal_(parameter, mean=1.0 if "ln_" in name and name.endswith("weight") else 0.0, std=0.2)
        self.theirs.save_pretrained(folder)
        self.ours = load_hf(folder)
        self.ids = torch.randint(97, (20,), generator=torch.Generator().manual_seed(2)).tolist()
        with torch.no_grad():
            self.output = self.theirs(torch.tensor([self.ids]), output_attentions=True, output_hidden_states=True)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    return Peer(tmp_path_factory.mktemp("transformers"))


# -- trace --


def test_a_trace_has_what_the_instruments_read(model: GPT2) -> None:
    found = gg.trace(model, IDS)
    assert isinstance(found, Trace)
    assert (found.ids, found.n_tokens) == (IDS, T)
    torch.testing.assert_close(found.logits, model(torch.tensor([IDS])))
    assert {name.split(".", 2)[-1] for name in found.activations if name.startswith("blocks.1")} == {
        "attn.q", "attn.k", "attn.v", "attn.pattern", "attn.out", "resid_mid", "mlp.out", "resid",
    }  # fmt: skip
    assert not any(name.endswith(LARGE) for name in found.activations)
    assert list(trace(model, IDS, ["final"]).activations) == ["final"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "the text is empty: it must have at least one token"),
        ([1] * 13, "the text has 13 tokens, more than the model's block_size of 12: use a shorter text"),
        ([1, V], "token id 11 is outside the model's vocabulary of 11 ids"),
        ([-1], "token id -1 is outside"),
    ],
)
def test_a_text_that_the_model_cannot_read_is_refused(model: GPT2, ids: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trace(model, ids)


def test_what_was_not_captured_is_named(model: GPT2) -> None:
    with pytest.raises(UserError, match=r"'blocks.1.attn.pattern'.*Known: final"):
        heads_of(trace(model, IDS, ["final", "blocks.0.attn.pattern"]))


# -- attention and the stream --


def test_patterns_equal_those_of_transformers(peer: Peer) -> None:
    found = heads_of(trace(peer.ours, peer.ids))
    assert found.shape == (3, 3, 20, 20)
    torch.testing.assert_close(found, torch.cat(peer.output.attentions), atol=1e-5, rtol=0)


def test_the_stream_equals_the_hidden_states_of_transformers(peer: Peer) -> None:
    found = trace(peer.ours, peer.ids)
    # Their last hidden state is normalised, and the stream after the last block is not among them.
    ours = [*streams(found)[:-1], found["final"]]
    torch.testing.assert_close(ours, list(peer.output.hidden_states), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", DECODERS)
def test_heads_of_every_architecture(architecture: str) -> None:
    found = trace(build(architecture), IDS)
    n_layer = {"head": 1, "multihead": 1, "feedforward": 1}.get(architecture, 3)
    with_attention = architecture not in ("bigram", "embedding", "averaging")
    n_head = 1 if architecture == "head" else H
    patterns = heads_of(found)
    assert patterns.shape == ((n_layer, n_head, T, T) if with_attention else (0, 0, T, T))
    assert attention_blocks(found.model) == list(range(len(patterns)))
    if architecture == "gpt_oss":  # the rest is the weight of a sink
        assert patterns.sum(dim=-1).min() > 0 and patterns.sum(dim=-1).max() < 1
    else:
        torch.testing.assert_close(patterns.sum(dim=-1), torch.ones(patterns.shape[:-1]))


@pytest.mark.parametrize("architecture", ["head", "multihead", "layernorm", "gpt2", "gpt3"])
def test_the_terms_of_a_score_add_up_to_it(architecture: str) -> None:
    found = trace(build(architecture), IDS, ["blocks.0.attn.scores", *trace(build(architecture), IDS).activations])
    scores, pattern = found["blocks.0.attn.scores"][0], found["blocks.0.attn.pattern"][0]
    for head in range(len(scores)):
        for query, key in ((0, 0), (T - 1, 0), (5, 3)):
            terms = score_terms(found, 0, head, query, key)
            torch.testing.assert_close(terms.terms.sum(), scores[head, query, key], atol=1e-5, rtol=1e-5)
            assert terms.score == pytest.approx(float(scores[head, query, key]), abs=1e-5)
            assert terms.weight == float(pattern[head, query, key])
            torch.testing.assert_close(terms.q @ terms.k / math.sqrt(len(terms.q)), terms.terms.sum())


def test_a_hidden_key_has_weight_0_and_a_wrong_place_is_refused(model: GPT2) -> None:
    found = trace(model, IDS)
    assert score_terms(found, 1, 0, 2, 6).weight == 0.0
    for place, message in (
        ((3, 0, 0, 0), "no block 3 has attention; blocks that have it: 0, 1, 2"),
        ((0, 4, 0, 0), "there is no head 4: block 0 has 4"),
        ((0, 0, T, 0), "there is no query 9: the text has 9 tokens"),
        ((0, 0, 0, -1), "there is no key -1"),
    ):
        with pytest.raises(UserError, match=message):
            score_terms(found, *place)
    with pytest.raises(UserError, match="blocks that have it: none"):
        score_terms(trace(build("averaging"), IDS), 0, 0, 0, 0)


# -- logit lens --


def test_the_lens_equals_their_norm_and_head_on_their_hidden_states(peer: Peer) -> None:
    lens = logit_lens(trace(peer.ours, peer.ids), top=7)
    hidden = peer.output.hidden_states
    with torch.no_grad():
        expected = [peer.theirs.lm_head(peer.theirs.transformer.ln_f(state[0])) for state in hidden[:-1]]
    expected = torch.stack([*expected, peer.output.logits[0]]).softmax(dim=-1)  # (4, 20, 97)
    values, ids = expected.topk(7)
    torch.testing.assert_close(lens.probabilities, values, atol=1e-5, rtol=0)
    assert torch.equal(lens.ids, ids)
    of_targets = expected[:, range(19), peer.ids[1:]]
    torch.testing.assert_close(lens.target_probabilities[:, :-1], of_targets, atol=1e-5, rtol=0)
    assert lens.target_probabilities[:, -1].isnan().all()


@pytest.mark.parametrize("architecture", DECODERS)
def test_the_last_layer_of_the_lens_is_the_model(architecture: str) -> None:
    found = trace(build(architecture), IDS)
    lens = logit_lens(found, positions=[3, T - 1, 0], top=100)
    depth = {"bigram": 0, "embedding": 0, "averaging": 0, "head": 1, "multihead": 1, "feedforward": 1}
    assert lens.ids.shape == lens.probabilities.shape == (1 + depth.get(architecture, 3), 3, V)  # no more than V
    expected = found.logits[0, [3, T - 1, 0]].softmax(dim=-1)
    torch.testing.assert_close(lens.probabilities[-1], expected.sort(descending=True).values)
    torch.testing.assert_close(lens.target_probabilities[-1, 0], expected[0, IDS[4]])
    torch.testing.assert_close(lens.probabilities.sum(dim=-1), torch.ones(lens.probabilities.shape[:2]))


@pytest.mark.parametrize("architecture", [name for name in DECODERS if build(name).blocks])
def test_a_layer_of_the_lens_is_the_model_without_the_blocks_after_it(architecture: str) -> None:
    model = build(architecture)
    lens = logit_lens(trace(model, IDS), top=1)
    for n in range(len(model.blocks) + 1):
        shorter = copy.deepcopy(model)
        del shorter.blocks[n:]
        expected = shorter(torch.tensor([IDS]))[0].softmax(dim=-1).max(dim=-1)
        torch.testing.assert_close(lens.probabilities[n, :, 0], expected.values, atol=1e-5, rtol=1e-5)
        assert torch.equal(lens.ids[n, :, 0], expected.indices)


def test_a_lens_in_parts_is_the_same(model: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    found = trace(model, IDS)
    whole = logit_lens(found)
    monkeypatch.setattr("glassgpt.inspection.lens.ROWS", 2)
    torch.testing.assert_close(vars(logit_lens(found)), vars(whole), equal_nan=True)
    assert logit_lens(found, positions=[]).ids.shape == (4, 0, 5)
    with pytest.raises(UserError, match="there is no position 9: the text has 9 tokens, counted from 0"):
        logit_lens(found, positions=[T])
    with pytest.raises(UserError, match="top = 0 is out of range"):
        logit_lens(found, top=0)


# -- attribution --


@pytest.mark.parametrize("architecture", WITH_STREAM)
@pytest.mark.parametrize("against", [None, 7])
def test_the_parts_of_a_logit_add_up_to_it(architecture: str, against: int | None) -> None:
    model = build(architecture)
    found = trace(model, IDS)
    logits = model(torch.tensor([IDS]))[0].detach()
    for position in (0, 4, T - 1):
        attribution = attribute(found, position, 2, against)
        expected = logits[position, 2] - (0.0 if against is None else logits[position, against])
        assert attribution.total == pytest.approx(float(expected), abs=1e-3, rel=1e-5)  # large without a norm
        assert sum(value for _, value in attribution.parts) == pytest.approx(attribution.total, abs=1e-3, rel=1e-5)


def test_every_part_of_gpt2_is_named(model: GPT2) -> None:
    names = [name for name, _ in attribute(trace(model, IDS), 0, 0).parts]
    blocks = [
        [*(f"blocks.{n}.head.{h}" for h in range(H)), f"blocks.{n}.attn.bias", f"blocks.{n}.mlp"] for n in (0, 1, 2)
    ]
    assert names == ["token_embedding", "position_embedding", *blocks[0], *blocks[1], *blocks[2], "norm.bias"]
    names = [name for name, _ in attribute(trace(build("embedding"), IDS), 0, 0).parts]
    assert names == ["token_embedding", "position_embedding", "head.bias"]


def test_a_part_is_what_the_logit_loses_without_it(model: GPT2) -> None:
    """Where no later part depends on it, with the final norm's scale put back to what it was."""
    found = trace(model, IDS)
    values = dict(attribute(found, 5, 2).parts)
    scale = (found["blocks.2.resid"][0, 5].var(unbiased=False) + 1e-5).sqrt()
    for part in ("blocks.2.mlp", "blocks.2.head.1"):
        with torch.no_grad(), edit(model, zero=[part], replace=_only(found, part)):
            without = trace(model, IDS)
        ratio = (without["blocks.2.resid"][0, 5].var(unbiased=False) + 1e-5).sqrt() / scale
        bias = float((model.norm.bias @ model.token_embedding.weight[2]).detach())
        logit = (float(without.logits[0, 5, 2]) - bias) * float(ratio) + bias
        assert values[part] == pytest.approx(float(found.logits[0, 5, 2]) - logit, abs=1e-4)


def _only(found: Trace, part: str) -> dict[str, Tensor]:
    """Keeps the MLP after a head as it was, so that only the direct effect remains."""
    return {"blocks.2.mlp": found["blocks.2.mlp.out"]} if "head" in part else {}


@pytest.mark.parametrize("neuron", [0, 37, 4 * C - 1])
def test_a_neuron_is_what_each_logit_loses_without_it(model: GPT2, neuron: int) -> None:
    """In the last block, on which no later part depends, with the final norm's scale put back to what it was."""
    found = trace(model, IDS, [*_default(model), "blocks.2.mlp.hidden"])
    with torch.no_grad(), edit(model, zero=[f"blocks.2.neuron.{neuron}"]):
        without = trace(model, IDS)
    scales = [(one["blocks.2.resid"][0, 5].var(unbiased=False) + 1e-5).sqrt() for one in (found, without)]
    bias = (model.token_embedding.weight @ model.norm.bias).detach()
    logits = (without.logits[0, 5] - bias) * scales[1] / scales[0] + bias
    torch.testing.assert_close(
        attribute_neuron(found, 2, neuron, 5), found.logits[0, 5].detach() - logits, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("architecture", [name for name in WITH_STREAM if name not in ("embedding", "gpt_oss")])
def test_the_neurons_add_up_to_their_mlp(architecture: str) -> None:
    model = build(architecture)
    down = model.blocks[1].mlp.down
    if down.bias is not None:
        nn.init.zeros_(down.bias)
    found = trace(model, IDS, [*_default(model), "blocks.1.mlp.hidden"])
    whole = [dict(attribute(found, 4, token).parts)["blocks.1.mlp"] for token in range(V)]
    neurons = torch.stack([attribute_neuron(found, 1, neuron, 4) for neuron in range(down.in_features)])
    torch.testing.assert_close(neurons.sum(dim=0), torch.tensor(whole), atol=1e-3, rtol=1e-4)


def test_a_neuron_that_does_not_exist_or_was_not_captured_is_refused(model: GPT2) -> None:
    found = trace(model, IDS)
    with pytest.raises(UserError, match="there is no neuron 64 in block 0: it has 64 neurons, counted from 0"):
        attribute_neuron(found, 0, 4 * C, 1)
    with pytest.raises(UserError, match=r"nothing in this model has the name 'blocks.0.mlp.hidden'"):
        attribute_neuron(found, 0, 1, 1)
    with pytest.raises(UserError, match="not the sum of what its parts add"):
        replaced = build("blocks")
        attribute_neuron(trace(replaced, IDS, [*_default(replaced), "blocks.0.mlp.hidden"]), 0, 1, 1)


def _default(model: nn.Module) -> list[str]:
    """What a trace captures by default."""
    return [name for name in capture_names(model) if not name.endswith(LARGE)]


def test_attribution_from_the_captured_results_is_the_same(model: GPT2) -> None:
    names = [name for name in trace(model, IDS).activations if not name.endswith("attn.out")]
    results = [f"blocks.{n}.attn.result" for n in range(3)]
    expected, found = attribute(trace(model, IDS), 3, 1), attribute(trace(model, IDS, [*names, *results]), 3, 1)
    assert dict(found.parts) == pytest.approx(dict(expected.parts), abs=1e-5)


@pytest.mark.parametrize("architecture", [name for name in DECODERS if name not in WITH_STREAM])
def test_a_logit_that_is_no_sum_has_no_attribution(architecture: str) -> None:
    with pytest.raises(UserError, match=r"not the sum of what its parts add.*section 8"):
        attribute(trace(build(architecture), IDS), 5, 2)


def test_attribution_of_what_does_not_exist_is_refused(model: GPT2) -> None:
    found = trace(model, IDS)
    with pytest.raises(UserError, match="there is no token 11: the model's vocabulary has 11 ids"):
        attribute(found, 0, 1, against=V)
    with pytest.raises(UserError, match="there is no position 9"):
        attribute(found, T, 1)


# -- effects --


@torch.no_grad()
def mean_loss(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(torch.tensor([IDS]))[0, :-1], torch.tensor(IDS[1:]))


@pytest.mark.parametrize("architecture", ["multihead", "feedforward", "residual", "layernorm", "gpt2", "gpt3"])
def test_a_head_that_is_off_costs_what_a_model_without_its_projection_loses(architecture: str) -> None:
    model = build(architecture)
    found, D = head_effects(model, IDS), C // H
    assert found.shape == (len(model.blocks), H)
    before = mean_loss(model)
    for n in range(len(model.blocks)):
        for head in range(H):
            without = copy.deepcopy(model)
            without.blocks[n].attn.proj.weight.data[:, head * D : (head + 1) * D] = 0.0
            torch.testing.assert_close(found[n, head], mean_loss(without) - before, atol=1e-4, rtol=1e-4)


def test_the_effects_of_models_with_one_head_and_with_none() -> None:
    model = build("head")
    without = copy.deepcopy(model)
    without.attn.value.weight.data.zero_()
    torch.testing.assert_close(head_effects(model, IDS), (mean_loss(without) - mean_loss(model)).reshape(1, 1))
    assert head_effects(build("averaging"), IDS).shape == (0, 0)


def test_the_effect_of_an_edit(model: GPT2) -> None:
    found = effect(model, IDS, zero=["blocks.1"], replace={"embed": 0.5})
    with torch.no_grad(), edit(model, zero=["blocks.1"], replace={"embed": 0.5}):
        expected = mean_loss(model)
    assert found.before.shape == found.after.shape == (T - 1,)
    torch.testing.assert_close(found.after.mean(), expected)
    assert found.change == pytest.approx(float(expected - mean_loss(model)), abs=1e-5)
    with pytest.raises(UserError, match="the text has 1 token: give at least 2"):
        effect(model, [1], zero=["embed"])
    with pytest.raises(UserError, match=r"there is no 'blocks.7'"):
        effect(model, IDS, zero=["blocks.7"])
