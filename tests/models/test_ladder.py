"""The ten sections: one contract, no look at the future, and each section's own idea."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.models.attention import Attention
from glassgpt.models.ladder import SECTIONS, LadderConfig, Section
from glassgpt.models.ladder.s03_averaging import average_by_loop, average_by_matrix, average_by_softmax
from glassgpt.models.ladder.s04_head import HeadModel, SelfAttentionHead, attention_scores
from glassgpt.models.ladder.s05_multihead import CausalSelfAttention, ListOfHeads

CONFIG = LadderConfig(vocab_size=23, block_size=12, n_layer=3, n_head=2, n_embd=16)

every_section = pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)


def build(section: Section, config: LadderConfig = CONFIG, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return section.model(config)


def build_awake(section: Section, config: LadderConfig = CONFIG) -> nn.Module:
    """A model in evaluation mode, its table or head no longer blank as at the start: its logits say something."""
    model = build(section, config).eval()
    torch.nn.init.normal_(model.table.weight if section.name == "bigram" else model.head.weight)
    return model


def some_tokens(B: int = 2, T: int = CONFIG.block_size, V: int = CONFIG.vocab_size, seed: int = 1) -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def test_the_table_counts_from_one_to_ten_with_names_of_their_files() -> None:
    assert [section.number for section in SECTIONS] == list(range(1, 11))
    for section in SECTIONS:
        assert section.model.__module__.endswith(f".s{section.number:02d}_{section.name}")


@every_section
def test_logits_are_the_head_of_the_features(section: Section) -> None:
    model = build_awake(section)
    tokens = some_tokens(B=3, T=7)
    logits = model(tokens)
    assert logits.shape == (3, 7, CONFIG.vocab_size)
    torch.testing.assert_close(logits, model.head(model.features(tokens)), rtol=0, atol=0)
    assert isinstance(model.blocks, nn.ModuleList)
    assert model.config is CONFIG


@every_section
def test_no_position_sees_the_future(section: Section) -> None:
    """The gradient of position t's logits with respect to the embedded tokens is 0 after t."""
    model = build_awake(section)
    embedded: list[Tensor] = []
    embedding = model.table if section.name == "bigram" else model.token_embedding
    embedding.register_forward_hook(lambda module, args, output: embedded.append(output))
    t = 5
    logits = model(some_tokens())
    (gradient,) = torch.autograd.grad((logits[:, t] * torch.randn(CONFIG.vocab_size)).sum(), embedded[0])
    reached = gradient.abs().sum(dim=(0, 2)) > 0  # (T,)
    sees_the_past = section.number >= 3
    assert reached.tolist() == [s == t or (sees_the_past and s < t) for s in range(CONFIG.block_size)]


@every_section
@pytest.mark.parametrize("vocab_size", [5, 65, 1000])
def test_the_first_loss_is_near_that_of_a_blind_guess(section: Section, vocab_size: int) -> None:
    config = LadderConfig(vocab_size=vocab_size, block_size=12, n_layer=3, n_head=2, n_embd=16)
    tokens = some_tokens(V=vocab_size)
    loss = F.cross_entropy(build(section, config)(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert abs(loss.item() - math.log(vocab_size)) < 0.25


@every_section
def test_it_learns_one_batch_better_than_letter_frequencies(section: Section) -> None:
    config = LadderConfig(vocab_size=8, block_size=12, n_layer=2, n_head=2, n_embd=16)
    model = build(section, config)
    tokens = some_tokens(B=4, T=13, V=8)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    frequencies = targets.flatten().bincount(minlength=8) / targets.numel()
    by_frequency = -(frequencies[targets.flatten()].log().mean()).item()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < by_frequency - 0.2


@every_section
def test_parameters_are_those_of_the_formula(section: Section) -> None:
    c = LadderConfig(vocab_size=23, block_size=12, n_layer=3, n_head=2, n_embd=16)
    V, T, C, L = c.vocab_size, c.block_size, c.n_embd, c.n_layer
    embeddings_and_head = V * C + T * C + C * V + V
    attention = 3 * C * C + (C * C + C)
    mlp = (C * 4 * C + 4 * C) + (4 * C * C + C)
    norms = 2 * 2 * C
    expected = {
        "bigram": V * V,
        "embedding": embeddings_and_head,
        "averaging": embeddings_and_head,
        "head": embeddings_and_head + 3 * C * C,
        "multihead": embeddings_and_head + attention,
        "feedforward": embeddings_and_head + attention + mlp,
        "blocks": embeddings_and_head + L * (attention + mlp),
        "residual": embeddings_and_head + L * (attention + mlp),
        "layernorm": embeddings_and_head + L * (attention + mlp + norms) + 2 * C,
        "decoder": embeddings_and_head + L * (attention + mlp + norms) + 2 * C,
    }
    assert sum(parameter.numel() for parameter in build(section, c).parameters()) == expected[section.name]


@settings(max_examples=20)
@given(B=st.integers(1, 3), T=st.integers(1, 9), C=st.integers(1, 5), seed=st.integers(0, 1000))
def test_three_ways_to_average_the_past_are_one(B: int, T: int, C: int, seed: int) -> None:
    x = torch.randn(B, T, C, generator=torch.Generator().manual_seed(seed))
    loop = average_by_loop(x)
    torch.testing.assert_close(average_by_matrix(x), loop)
    torch.testing.assert_close(average_by_softmax(x), loop)


@pytest.mark.parametrize("D", [4, 64, 1024])
def test_scaled_scores_have_variance_one(D: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(8, 64, D, generator=generator), torch.randn(8, 64, D, generator=generator)
    assert attention_scores(q, k).var().item() == pytest.approx(1.0, rel=0.1)


def test_the_head_by_hand_is_the_shared_attention_with_one_head() -> None:
    torch.manual_seed(0)
    head = SelfAttentionHead(CONFIG)
    x = torch.randn(2, 7, CONFIG.n_embd)
    q, k, v = (view(x).unsqueeze(1) for view in (head.query, head.key, head.value))
    torch.testing.assert_close(head(x), Attention()(q, k, v).squeeze(1))


def test_a_list_of_heads_is_the_packed_attention() -> None:
    torch.manual_seed(0)
    packed, listed = CausalSelfAttention(CONFIG), ListOfHeads(CONFIG)
    H, C = CONFIG.n_head, CONFIG.n_embd
    query, key, value = packed.qkv.weight.view(3, H, C // H, C)
    for n, head in enumerate(listed.heads):
        head.load_state_dict({"query.weight": query[n], "key.weight": key[n], "value.weight": value[n]})
    listed.proj.load_state_dict(packed.proj.state_dict())
    x = torch.randn(2, 7, C)
    torch.testing.assert_close(listed(x), packed(x))


def test_equal_scores_make_the_head_an_average_of_values() -> None:
    """Queries of 0 weigh all of the past alike, as section 3 does, but what is averaged are the values."""
    torch.manual_seed(0)
    attn = HeadModel(CONFIG).attn
    torch.nn.init.zeros_(attn.query.weight)
    x = torch.randn(2, 7, CONFIG.n_embd)
    torch.testing.assert_close(attn(x), average_by_softmax(attn.value(x)))


@pytest.mark.parametrize("number", [7, 8, 9, 10])
def test_from_the_residual_on_a_silent_block_passes_its_input_on(number: int) -> None:
    block = build(SECTIONS[number - 1]).eval().blocks[0]
    for layer in (block.attn.proj, block.mlp.down):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(2, 7, CONFIG.n_embd)
    assert torch.equal(block(x), x) == (number >= 8)


def test_layer_norm_makes_a_block_blind_to_the_scale_of_the_stream() -> None:
    """With residuals alone, what attention adds grows with its input; behind a norm it does not."""
    x = torch.randn(2, 7, CONFIG.n_embd, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        residual = build(SECTIONS[7]).blocks[0]
        assert not torch.allclose(residual.attn(10 * x), residual.attn(x), rtol=0.1, atol=0.1)
        normed = build(SECTIONS[8]).blocks[0]
        added, added_to_large = (normed.attn(normed.norm1(stream)) for stream in (x, 10 * x))
        torch.testing.assert_close(added_to_large, added, rtol=1e-3, atol=1e-4)


def test_dropout_is_of_section_ten_and_of_training_alone() -> None:
    config = LadderConfig(vocab_size=23, block_size=12, n_layer=2, n_head=2, n_embd=16, dropout=0.5)
    tokens = some_tokens()
    for section in SECTIONS:
        model = build_awake(section, config)
        assert torch.equal(model(tokens), model(tokens))
        model.train()
        assert torch.equal(model(tokens), model(tokens)) == (section.name != "decoder")


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="not divisible"):
        LadderConfig(n_embd=10, n_head=4)
    with pytest.raises(UserError, match=r"model\.n_layer = 0"):
        LadderConfig(n_layer=0)
