"""GPT-3: that every second layer sees a band of the past and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.models.attention import window_mask
from glassgpt.models.context import Documents, KVCache
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config
from glassgpt.training.losses import Batch, next_token_loss

SMALL = GPT3Config(vocab_size=53, block_size=16, n_layer=4, n_head=2, n_embd=12, band_width=4)


def awake(config: GPT3Config = SMALL) -> GPT3:
    """A model in evaluation mode whose weights are so large that every part of it matters."""
    torch.manual_seed(0)
    model = GPT3(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def some_tokens(B: int = 2, T: int = SMALL.block_size, seed: int = 1) -> Tensor:
    return torch.randint(SMALL.vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


def test_a_band_by_hand() -> None:
    rows = ["1....", "11...", ".11..", "..11.", "...11"]
    whole = torch.tensor([[character == "1" for character in row] for row in rows])
    assert torch.equal(window_mask(5, 5, 2, torch.device("cpu"))[0, 0], whole)
    assert torch.equal(window_mask(2, 5, 2, torch.device("cpu"))[0, 0], whole[3:])  # the queries are the last positions
    assert window_mask(3, 5, 5, torch.device("cpu")) is None  # as wide as the context: causality alone decides


def test_a_banded_layer_sees_its_band_and_a_dense_one_all() -> None:
    model = awake()
    for layer, block in enumerate(model.blocks):
        x = torch.randn(1, 16, 12, requires_grad=True)
        block.attn(x, None)[0, 10].sum().backward()
        assert x.grad is not None
        seen = x.grad[0].abs().sum(dim=-1).ne(0).nonzero().flatten().tolist()
        assert seen == ([7, 8, 9, 10] if layer % 2 else list(range(11)))


def test_a_band_as_wide_as_the_context_is_gpt2() -> None:
    wide = awake(GPT3Config(vocab_size=53, block_size=16, n_layer=4, n_head=2, n_embd=12, band_width=16))
    model = GPT2(GPT2Config(vocab_size=53, block_size=16, n_layer=4, n_head=2, n_embd=12)).eval()
    model.load_state_dict(wide.state_dict())
    assert torch.equal(wide(some_tokens()), model(some_tokens()))
    assert not torch.allclose(awake()(some_tokens()), model(some_tokens()))


@pytest.mark.parametrize("t", [0, 7, 15])
def test_no_token_sees_the_future(t: int) -> None:
    model, tokens = awake(), some_tokens(B=1)
    other = tokens.clone()
    other[:, t] = (other[:, t] + 1) % SMALL.vocab_size
    same = (model(tokens) == model(other)).all(dim=-1).flatten().tolist()
    assert same == [position < t for position in range(16)]


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


def test_documents_of_a_row_do_not_see_each_other() -> None:
    """Each gets the logits of a row of its own, bands included."""
    model, tokens = awake(), some_tokens(B=1) % 52  # 52 is the eot_id
    tokens[0, [0, 7]] = 52
    together = model(tokens, context=Documents(tokens, 52))
    for part in (slice(0, 7), slice(7, 16)):
        torch.testing.assert_close(together[:, part], model(tokens[:, part]), atol=1e-5, rtol=1e-5)


def test_the_watched_path_equals_the_fused() -> None:
    model, tokens = awake(), some_tokens()
    fused = model(tokens)
    for block in model.blocks:
        block.attn.inner.hook = lambda name, value: None
    torch.testing.assert_close(model(tokens), fused, atol=1e-5, rtol=0)


def test_it_learns_and_every_parameter_takes_part() -> None:
    torch.manual_seed(0)
    model, tokens = GPT3(SMALL), some_tokens(B=4)
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        found = next_token_loss(model, batch)
        loss, weight = found.sum, found.weight
        optimizer.zero_grad()
        (loss / weight).backward()
        optimizer.step()
        losses.append(loss.item() / float(weight))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert losses[-1] < 0.5 * losses[0]


def test_a_band_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.band_width = 0 is out of range: it must be at least 1"):
        GPT3Config(band_width=0)
