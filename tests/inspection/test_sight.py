"""What a query sees is what the model's own mask lets it see, and what no key gets is the sink's."""

from __future__ import annotations

import math

import pytest
import torch
from toy_models import DECODERS, T, V, build

from glassgpt.inspection.attention import head_scores, heads_of, score_terms, sinks_of
from glassgpt.inspection.sight import Sight, sights_of
from glassgpt.inspection.trace import attention_blocks, trace
from glassgpt.models import find_architecture

IDS = torch.randint(V, (T,), generator=torch.Generator().manual_seed(1)).tolist()
WITH_ATTENTION = [name for name in (*DECODERS, "bert") if attention_blocks(build(name))]


def banded(architecture: str, width: int) -> torch.nn.Module:
    model = build(architecture)
    for block in model.blocks:
        if block.attn.band is not None:
            block.attn.band = width
    config = find_architecture(architecture).config(**{**vars(model.config), "band_width": width})
    model.config = config  # one mask serves all banded layers, and is made of the config
    return model


@pytest.mark.parametrize("architecture", WITH_ATTENTION)
def test_a_query_sees_what_the_mask_leaves_it(architecture: str) -> None:
    model = banded(architecture, 3) if architecture in ("gpt3", "gpt_oss") else build(architecture)
    blocks = attention_blocks(model)
    seen = trace(model, IDS, [f"blocks.{n}.attn.scores" for n in blocks])
    sights = sights_of(model)
    assert len(sights) == len(blocks)
    for n, sight in zip(blocks, sights, strict=True):
        visible = sight.visible(T, T)
        assert torch.equal(seen[f"blocks.{n}.attn.scores"][0] > -torch.inf, visible.expand(len(visible) and 1, T, T)
                           .expand_as(seen[f"blocks.{n}.attn.scores"][0]))  # fmt: skip
        assert all(list(sight.keys(t, T)) == visible[t].nonzero().flatten().tolist() for t in range(T))


def test_the_layers_with_a_window_are_named() -> None:
    assert [sight.name for sight in sights_of(banded("gpt3", 3))] == ["full", "window 3", "full"]
    assert [sight.name for sight in sights_of(banded("gpt_oss", 3))] == ["window 3", "full", "window 3"]
    assert sights_of(build("gpt2")) == [Sight()] * 3
    assert sights_of(build("bert")) == [Sight(causal=False)] * 3


def test_the_sink_has_what_the_keys_lack() -> None:
    model = banded("gpt_oss", 3)
    seen = trace(
        model, IDS, [name for n in range(3) for name in (f"blocks.{n}.attn.scores", f"blocks.{n}.attn.pattern")]
    )
    sinks = sinks_of(seen)
    assert sinks is not None and sinks.shape == (3, 4, T)
    for n in range(3):
        own = model.blocks[n].attn.sinks.detach()[:, None].exp()
        expected = own / (own + seen[f"blocks.{n}.attn.scores"][0].exp().sum(dim=-1))
        torch.testing.assert_close(sinks[n], expected, atol=1e-5, rtol=1e-4)
    assert sinks_of(trace(build("gpt3"), IDS)) is None


def test_entropy_is_a_share_of_what_a_query_can_reach() -> None:
    visible = Sight(window=2).visible(4, 4)
    spread = visible / visible.sum(dim=-1, keepdim=True)
    assert float(head_scores(spread, [0, 1, 2, 3], visible).entropy) == pytest.approx(1.0)
    assert float(head_scores(spread, [0, 1, 2, 3]).entropy) < 0.9  # of all earlier positions
    alone = Sight(window=1).visible(4, 4)
    assert float(head_scores(alone * 0.6, [0, 1, 2, 3], alone).entropy) == 0.0  # the rest is the sink's


def test_the_next_token_is_a_kind_of_an_encoder() -> None:
    ahead = torch.eye(4).roll(1, dims=1)
    scores = head_scores(ahead, [0, 1, 2, 3], Sight(causal=False).visible(4, 4))
    assert (float(scores.next), float(scores.previous)) == (1.0, 0.0)
    causal = head_scores(heads_of(trace(build("gpt2"), IDS)), IDS)
    assert not causal.next.any()


def test_terms_have_the_scale_of_the_model() -> None:
    model = build("gpt_oss")
    found = score_terms(trace(model, IDS), 1, 2, 5, 3)
    scores = trace(model, IDS, ["blocks.1.attn.scores"])["blocks.1.attn.scores"]
    assert found.score == pytest.approx(float(scores[0, 2, 5, 3]), abs=1e-5)
    assert model.blocks[1].attn.inner.scale != pytest.approx(1 / math.sqrt(len(found.q)))
