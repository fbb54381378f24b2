"""The key-value cache keeps what it was given, in order, and says when it is full."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glassgpt.models import Model
from glassgpt.models.attention import Attention
from glassgpt.models.context import KVCache
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 3))
@settings(max_examples=20)
def test_it_returns_all_so_far_of_each_layer(chunks: list[int], n_layer: int) -> None:
    keys = torch.randn(n_layer, 2, 3, sum(chunks), 4, generator=torch.Generator().manual_seed(0))
    values = -keys
    cache = KVCache(block_size=sum(chunks))
    for n_tokens in chunks:
        new = slice(cache.length, cache.length + n_tokens)
        for layer in range(n_layer):
            k, v, _ = cache.append(layer, keys[layer, :, :, new], values[layer, :, :, new])
            assert torch.equal(k, keys[layer, :, :, : new.stop])
            assert torch.equal(v, values[layer, :, :, : new.stop])
        cache.advance(n_tokens)
    assert cache.length == sum(chunks)


def test_more_than_block_size_does_not_fit() -> None:
    cache = KVCache(block_size=3)
    rows = torch.zeros(1, 1, 2, 4)
    cache.append(0, rows, rows)
    cache.advance(2)
    with pytest.raises(ValueError, match="4 positions do not fit into a cache of block_size 3"):
        cache.append(0, rows, rows)
    assert cache.length == 2


def test_memory_grows_with_the_text_in_large_pieces() -> None:
    """Short rows of a long window would else lie far from each other, and be slow to read."""
    cache, sizes = KVCache(block_size=1000, max_rows=3), []
    k = torch.randn(2, 2, 1000, 4, generator=torch.Generator().manual_seed(0))
    for place in range(1000):
        keys, values, _ = cache.append(0, k[:, :, place : place + 1], -k[:, :, place : place + 1])
        cache.advance(1)
        sizes.append(keys.untyped_storage().nbytes() // (2 * 3 * 2 * 4 * 4))  # positions
    assert torch.equal(keys, k)
    assert torch.equal(values, -k)
    assert all(length <= room <= length + max(64, length // 4) for length, room in enumerate(sizes, 1))
    assert len(set(sizes)) < 12


@given(st.lists(st.integers(1, 14), min_size=1, max_size=3), st.sampled_from([None, 1, 2, 5]))
@settings(max_examples=25)
def test_a_rolling_cache_keeps_the_last_positions(lengths: list[int], window: int | None) -> None:
    """Whatever the lengths of the rows, attention is that over the last `window` positions, by default block_size."""
    block, attention, n_rows = 6, Attention(), len(lengths)
    q, k, v = torch.randn(3, n_rows, 2, 40, 4, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(1, 41).repeat(n_rows, 1)
    cache = KVCache(block, rolling=True)
    prompt = [min(length, block) for length in lengths]
    cache.preceding(ids[:, : max(prompt)], 8)
    cache.append(0, k[:, :, : max(prompt)], v[:, :, : max(prompt)], window=window)
    cache.advance(max(prompt))
    cache.truncate(torch.tensor(prompt))
    rows = torch.arange(n_rows)
    for step in range(20):
        places = torch.tensor(prompt) + step
        earlier = cache.preceding(ids[rows, places][:, None], 8)
        new_k, new_v = k[rows, :, places][:, :, None], v[rows, :, places][:, :, None]
        keys, values, mask = cache.append(0, new_k, new_v, window=window)
        found = attention(q[rows, :, places][:, :, None], keys, values, mask)
        cache.advance(1)
        for row, place in enumerate(places.tolist()):
            seen = slice(max(place + 1 - (window or block), 0), place + 1)
            expected = attention(q[row : row + 1, :, place : place + 1], k[row, None, :, seen], v[row, None, :, seen])
            torch.testing.assert_close(found[row], expected[0], atol=1e-5, rtol=1e-5)
            assert earlier[row, max(8 - place, 0) :].tolist() == list(range(max(place - 7, 1), place + 2))
    with pytest.raises(ValueError, match="cannot truncate"):
        cache.truncate(cache._stored() - 1)
    with pytest.raises(ValueError, match="do not fit into a cache of block_size 6"):
        cache.append(0, k[:, :, :2], v[:, :, :2])


MODELS = {
    "gpt2": GPT2(GPT2Config(23, 16, n_layer=2, n_head=2, n_embd=12)),
    "gpt3": GPT3(GPT3Config(23, 16, n_layer=4, n_head=2, n_embd=12, band_width=4)),  # banded in every second layer
}


def awake(name: str) -> Model:
    torch.manual_seed(0)
    for parameter in MODELS[name].parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return MODELS[name].eval()


@torch.no_grad()
def write_greedily(model: Model, prompts: list[list[int]], n: int) -> tuple[list[list[int]], list[Tensor]]:
    """Right-padded prompts together: the ids that follow each, and the logits (B, V) of every step."""
    cache, lengths = KVCache(model.config.block_size), torch.tensor([len(prompt) for prompt in prompts])
    padded = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True)
    logits = model(padded, context=cache)[torch.arange(len(prompts)), lengths - 1]
    cache.truncate(lengths)
    steps, chosen = [logits], [logits.argmax(dim=-1)]
    for _ in range(n - 1):
        steps.append(model(chosen[-1][:, None], context=cache)[:, -1])
        chosen.append(steps[-1].argmax(dim=-1))
    return torch.stack(chosen, dim=1).tolist(), steps


@pytest.mark.parametrize("name", MODELS)
@given(prompts=st.lists(st.lists(st.integers(0, 22), min_size=1, max_size=10), min_size=1, max_size=4))
@settings(max_examples=15)
def test_prompts_of_different_lengths_are_gone_on_with_as_each_alone(name: str, prompts: list[list[int]]) -> None:
    model = awake(name)
    together, steps = write_greedily(model, prompts, 6)
    for row, prompt in enumerate(prompts):
        [alone], steps_alone = write_greedily(model, [prompt], 6)
        assert together[row] == alone
        for logits, expected in zip(steps, steps_alone, strict=True):
            torch.testing.assert_close(logits[row], expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "gpt3"])
def test_rows_of_different_lengths_may_get_several_tokens_at_once(name: str) -> None:
    model, cache = awake(name), KVCache(16)
    tokens = torch.randint(23, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(tokens)
        model(tokens[:, :7], context=cache)
        cache.truncate(torch.tensor([3, 7]))
        more = model(torch.stack([tokens[0, 3:8], tokens[1, 7:12]]), context=cache)
    torch.testing.assert_close(more[0], whole[0, 3:8], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(more[1], whole[1, 7:12], atol=1e-5, rtol=1e-5)
    assert cache.length == 12
    assert cache.lengths is not None and cache.lengths.tolist() == [8, 12]


def test_rows_of_one_length_need_no_mask() -> None:
    cache = KVCache(8)
    rows = torch.zeros(2, 1, 4, 4)
    cache.append(0, rows, rows)
    cache.advance(4)
    cache.truncate(torch.tensor([3, 3]))
    assert (cache.length, cache.lengths) == (3, None)
    assert cache.append(0, rows[:, :, :1], rows[:, :, :1])[2] is None


@pytest.fixture
def fresh_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # which fills the memory of torch.empty with NaN
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("fresh_memory_is_nan")
def test_what_was_never_written_is_not_read() -> None:
    """Fresh memory may hold a NaN, which no weight of zero takes away."""
    assert torch.empty(3).isnan().all()
    cache = KVCache(8)
    rows = torch.ones(2, 1, 4, 4)
    cache.append(0, rows, rows)
    cache.advance(4)
    cache.truncate(torch.tensor([2, 4]))
    k, v, mask = cache.append(0, rows[:, :, :1], rows[:, :, :1])
    assert mask is not None
    assert not Attention()(rows[:, :, :1], k, v, mask).isnan().any()


@pytest.mark.parametrize("lengths", [[5, 1], [-1, 2]])
def test_a_row_cannot_keep_what_it_does_not_have(lengths: list[int]) -> None:
    cache = KVCache(8)
    rows = torch.zeros(2, 1, 4, 4)
    cache.append(0, rows, rows)
    cache.advance(4)
    with pytest.raises(ValueError, match=r"cannot truncate rows of \[4, 4\] positions to "):
        cache.truncate(torch.tensor(lengths))


@given(data=st.data())
@settings(max_examples=25)
def test_rows_come_and_go(data: st.DataObject) -> None:
    """A cache holds what a list of rows holds, in which the last row takes the place of a removed one."""
    cache, rows, made = KVCache(6, max_rows=4), [], 0
    for _ in range(data.draw(st.integers(1, 12))):
        if len(rows) < 4 and (not rows or data.draw(st.booleans())):
            n_new, length = data.draw(st.integers(1, 4 - len(rows))), data.draw(st.integers(1, 6))
            k = torch.arange(made, made + n_new * 2 * length * 3.0).reshape(n_new, 2, length, 3)
            made += k.numel()
            joining = KVCache(length)
            joining.append(0, k, -k)
            joining.advance(length)
            cache.join(joining)
            rows += list(k)
        else:
            row = data.draw(st.integers(0, len(rows) - 1))
            cache.remove(row)
            rows[row] = rows[-1]
            rows.pop()
        lengths = [row.size(1) for row in rows]
        assert (cache.n_rows, cache.length) == (len(rows), max(lengths, default=0))
        assert cache.lengths is None or cache.lengths.tolist() == lengths
        for number, row in enumerate(rows):
            for part, sign in zip(cache._layers[0], (1, -1), strict=True):
                assert torch.equal(sign * part[number, :, : row.size(1)], row)


def test_what_does_not_fit_is_refused() -> None:
    one, two = KVCache(8), KVCache(8, max_rows=1)
    rows = torch.zeros(2, 1, 4, 4)
    one.append(0, rows, rows)
    one.advance(4)
    for full in (two, KVCache(3, max_rows=2), KVCache(8)):
        with pytest.raises(ValueError, match="2 rows of up to 4 positions do not fit into this cache"):
            full.join(one)
    with pytest.raises(ValueError, match="a pass of 1 rows does not fit a cache of 2 rows"):
        one.append(0, rows[:1], rows[:1])
