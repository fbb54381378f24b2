"""The modern GPT: n-gram embeddings see earlier ids wherever they are, and without them it is Qwen3."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from glassgpt.errors import UserError
from glassgpt.models.block_masks import BlockMasks
from glassgpt.models.context import Context, Documents, KVCache
from glassgpt.models.modern import Modern, ModernConfig, hidden_size

SMALL = {"vocab_size": 7, "block_size": 24, "n_layer": 2, "n_head": 2, "n_embd": 16, "ngram": 4, "ngram_rows": 97}


def build(**sizes: float) -> Modern:
    """A small model in float64, with weights that all matter."""
    torch.manual_seed(0)
    model = Modern(ModernConfig(**{**SMALL, **sizes})).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(1, SMALL["vocab_size"], shape, generator=torch.Generator().manual_seed(seed))


def test_a_new_model_predicts_every_token_with_the_same_probability() -> None:
    model = Modern(ModernConfig(**SMALL))
    assert not model(ids(2, 9)).any()
    assert not any(table.weight.any() for table in model.ngram_embeddings)


def test_a_position_gets_the_embeddings_of_the_ngrams_that_end_there() -> None:
    model, tokens = build(), ids(1, 24)
    embedded = model.embed(tokens, torch.arange(24), None)[0]
    row = tokens[0].tolist()
    rest: defaultdict[tuple[int, ...], list[torch.Tensor]] = defaultdict(list)
    for t in range(3, 24):  # the same last four ids: the same embedding
        rest[tuple(row[t - 3 : t + 1])].append(embedded[t])
    for t in range(24):  # by hand: the remainder of a polynomial, and row 0 where the text is too short
        expected = model.token_embedding.weight[row[t]].clone()
        hashed = row[t]
        for distance, table in enumerate(model.ngram_embeddings, 1):
            if t >= distance:
                hashed = (hashed * 1_000_003 + row[t - distance] + distance) % (2**31 - 1)
                expected += table.weight[1 + hashed % 96]
            else:
                expected += table.weight[0]
        torch.testing.assert_close(embedded[t], expected)
    assert all(torch.equal(one, group[0]) for group in rest.values() for one in group)


def test_the_row_for_no_ngram_stays_zero() -> None:
    model = Modern(ModernConfig(**SMALL))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for seed in range(3):
        tokens = ids(4, 12, seed=seed)
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
    for table in model.ngram_embeddings:
        assert not table.weight[0].any()
        assert table.weight[1:].any()


def test_dropout_leaves_out_whole_ngrams_in_training_only() -> None:
    model, tokens = build(ngram_dropout=0.5), ids(8, 24)
    positions = torch.arange(24)
    whole = build().embed(tokens, positions, None)
    torch.testing.assert_close(model.eval().embed(tokens, positions, None), whole)
    nn.init.zeros_(model.token_embedding.weight)
    for table in list(model.ngram_embeddings)[1:]:
        nn.init.zeros_(table.weight)
    only = model.embed(tokens, positions, None)
    dropped = model.train().embed(tokens, positions, None)
    left_out = (dropped == 0).all(dim=-1)
    torch.testing.assert_close(dropped[~left_out], 2 * only[~left_out])  # so that the mean stays
    assert 0.3 < left_out.float().mean() < 0.7


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
@settings(max_examples=15)
def test_a_cached_pass_in_any_pieces_is_the_whole_pass(sizes: list[int]) -> None:
    model = build()
    tokens = ids(2, sum(sizes))[:, :24]
    cache = KVCache(24)
    with torch.no_grad():
        pieces = [model(piece, context=cache) for piece in tokens.split(sizes[: _whole(sizes, 24)], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens[:, : sum(p.size(1) for p in pieces)]))


def _whole(sizes: list[int], most: int) -> int | None:
    return None if sum(sizes) <= most else next(n for n in range(len(sizes)) if sum(sizes[: n + 1]) > most)


def test_rows_of_different_lengths_in_one_cache() -> None:
    model, tokens = build(), ids(3, 24)
    lengths = torch.tensor([3, 9, 1])
    cache = KVCache(24)
    with torch.no_grad():
        model(tokens[:, :9], context=cache)
        cache.truncate(lengths)
        following = torch.stack([row[n : n + 5] for row, n in zip(tokens, lengths, strict=True)])
        found = torch.cat([model(following[:, :2], context=cache), model(following[:, 2:], context=cache)], dim=1)
        for row, n, logits in zip(tokens, lengths.tolist(), found, strict=True):
            torch.testing.assert_close(logits, model(row[None, : n + 5])[0, n:])


@pytest.mark.parametrize("masks", [Documents, BlockMasks])
def test_an_ngram_does_not_reach_into_the_document_before(masks: type[Context]) -> None:
    model, tokens = build(), ids(2, 24)
    tokens[:, [5, 14]] = 0
    with torch.no_grad():
        context = Documents(tokens, 0) if masks is Documents else BlockMasks(tokens, 0, None)
        embedded = model.embed(tokens, context.positions(24, tokens.device), context)
        torch.testing.assert_close(embedded[:, 14:], model.embed(tokens[:, 14:], torch.arange(10), None))
        if masks is Documents:
            found = model(tokens, context=context)
            torch.testing.assert_close(found[:, 14:], model(tokens[:, 14:]))
            torch.testing.assert_close(found[:, 5:14], model(tokens[:, 5:14]))


def test_without_ngrams_it_is_qwen3() -> None:
    transformers = pytest.importorskip("transformers")
    ours = build(ngram=1).float()
    config = transformers.Qwen3Config(
        vocab_size=7, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        intermediate_size=hidden_size(16), max_position_embeddings=24, rms_norm_eps=1e-6, rope_theta=10_000.0,
        tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        theirs.model.embed_tokens.weight.copy_(ours.token_embedding.weight)
        theirs.model.norm.weight.copy_(ours.norm.weight)
        theirs.lm_head.weight.copy_(ours.head.weight)
        for block, layer in zip(ours.blocks, theirs.model.layers, strict=True):
            q, k, v = block.attn.qkv.weight.chunk(3)
            for target, value in (
                (layer.self_attn.q_proj, q), (layer.self_attn.k_proj, k), (layer.self_attn.v_proj, v),
                (layer.self_attn.o_proj, block.attn.proj.weight), (layer.self_attn.q_norm, block.attn.norm_q.weight),
                (layer.self_attn.k_norm, block.attn.norm_k.weight), (layer.input_layernorm, block.norm1.weight),
                (layer.post_attention_layernorm, block.norm2.weight), (layer.mlp.gate_proj, block.mlp.gate.weight),
                (layer.mlp.up_proj, block.mlp.up.weight), (layer.mlp.down_proj, block.mlp.down.weight),
            ):  # fmt: skip
                target.weight.copy_(value)
        tokens = ids(2, 20)
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"ngram": 0}, "model.ngram = 0 is out of range"),
        ({"ngram": 17}, "model.ngram = 17 is out of range"),
        ({"ngram_rows": 1}, "model.ngram_rows = 1 is out of range"),
        ({"ngram_dropout": 1.0}, "model.ngram_dropout = 1.0 is out of range"),
        ({"n_embd": 6}, "a head needs an even number"),
    ],
)
def test_sizes_out_of_range(sizes: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        ModernConfig(**{**SMALL, **sizes})
