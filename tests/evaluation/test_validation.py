"""The validation loss against a loop over every target in float64, and what it must leave alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from glassgpt.data.shards import TokenArray, dtype_for, write_shard
from glassgpt.errors import UserError
from glassgpt.evaluation import logits as limits
from glassgpt.evaluation.validation import Evaluation, bytes_per_token, evaluate
from glassgpt.models import Model
from glassgpt.models.context import Context
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.char import CharTokenizer

CPU = Runtime(torch.device("cpu"), "float32")
BLOCK, VOCAB, PADDED = 8, 13, 16
BYTES = np.array([0, 1, 1, 1, 2, 3, 4, 1, 1, 1, 1, 0, 6])  # of text that each id stands for; 0 and 11 are special


class FakeTokens:
    """A token array in memory."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def slice(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= len(self.ids)
        return self.ids[start:stop]


class Watched(Model):
    """A model that gives every token the same logits, and remembers what it was shown, and its head how much."""

    def __init__(self) -> None:
        super().__init__()
        self.config = GPT2Config(VOCAB, BLOCK, n_layer=1, n_head=1, n_embd=1)
        self.logits = nn.Parameter(torch.zeros(VOCAB))
        self.seen: list[Tensor] = []
        self.headed: list[int] = []

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        self.seen.append(tokens)
        return torch.zeros(*tokens.shape, 1)

    def head(self, features: Tensor) -> Tensor:
        self.headed.append(len(features))
        return self.logits.expand(*features.shape[:-1], VOCAB)


def build(dropout: float = 0.0) -> GPT2:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(VOCAB, BLOCK, n_layer=2, n_head=2, n_embd=16, dropout=dropout, padded_vocab_size=PADDED))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def draw_ids(n_tokens: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(VOCAB, size=n_tokens)


def measure(model: Model, ids: np.ndarray, *, max_tokens: int | None = None, rows: int = 64) -> Evaluation:
    tokens: TokenArray = FakeTokens(ids)  # type: ignore[assignment]
    return evaluate(model, tokens, BYTES, CPU, max_tokens=max_tokens, rows=rows)


def losses_by_hand(ids: np.ndarray) -> list[float]:
    """One pass for each target, over what came before it in its window, in float64."""
    model = build().double().eval()
    losses = []
    for target in range(1, len(ids)):
        start = (target - 1) // BLOCK * BLOCK
        with torch.no_grad():
            logits = model(torch.from_numpy(ids[None, start:target]))[0, -1]
        losses.append(-torch.log_softmax(logits, dim=-1)[ids[target]].item())
    return losses


@given(st.integers(2, 45), st.integers(1, 4))
@settings(max_examples=15)
def test_a_whole_split_is_every_target_once(n_tokens: int, rows: int) -> None:
    ids = draw_ids(n_tokens)
    expected = losses_by_hand(ids)
    got = measure(build(), ids, rows=rows)
    assert got.tokens == n_tokens - 1
    assert got.loss == pytest.approx(sum(expected) / (n_tokens - 1), rel=1e-6)
    of_text = [(loss, BYTES[id]) for loss, id in zip(expected, ids[1:], strict=True) if BYTES[id]]
    bits, n_bytes = sum(loss for loss, _ in of_text) / math.log(2), sum(size for _, size in of_text)
    assert got.bits_per_byte == pytest.approx(bits / n_bytes if n_bytes else 0.0, rel=1e-6)


def test_bits_per_byte_in_figures() -> None:
    """Equal logits: log2(13) bits a token. Ids 4, 5, 6 stand for 2 + 3 + 4 bytes, the special id 0 for none."""
    got = measure(Watched(), np.array([7, 4, 5, 0, 6]))
    assert got.loss == pytest.approx(math.log(VOCAB))
    assert got.bits_per_byte == pytest.approx(3 * math.log2(VOCAB) / 9)
    assert got.tokens == 4
    assert got.perplexity == pytest.approx(VOCAB)


def test_a_padded_vocabulary_takes_no_part_in_the_loss() -> None:
    """No tokenizer gives the ids of the padding, so no probability is theirs."""
    model, ids = build(), draw_ids(20)
    expected = measure(model, ids)
    with torch.no_grad():
        model.token_embedding.weight[VOCAB:] = 50.0
    assert measure(model, ids) == expected


@pytest.mark.parametrize(
    ("max_tokens", "n_windows"), [(1, 1), (8, 1), (24, 3), (39, 4), (40, 5), (79, 9), (10_000, 12)]
)
def test_a_part_is_whole_windows_evenly_spread_and_always_the_same(max_tokens: int, n_windows: int) -> None:
    """Of 12 whole windows of 8 and 3 targets more."""
    ids = draw_ids(12 * BLOCK + 4)
    model = Watched()
    first = measure(model, ids, max_tokens=max_tokens, rows=5)
    seen = [row.tolist() for batch in model.seen for row in batch if len(row) == BLOCK]
    windows = [ids[start : start + BLOCK].tolist() for start in range(0, 12 * BLOCK, BLOCK)]
    chosen = [windows.index(row) for row in seen]
    assert len(chosen) == n_windows
    gaps = np.diff([*chosen, 12])
    assert gaps.max() - gaps.min() <= 1
    assert first.tokens == (n_windows * BLOCK if max_tokens < 10_000 else len(ids) - 1)
    assert measure(model, ids, max_tokens=max_tokens, rows=5) == first


def test_it_draws_no_random_number_and_leaves_the_mode() -> None:
    model = build(dropout=0.5)
    ids = draw_ids(50)
    expected = measure(build().eval(), ids)
    before = torch.get_rng_state()
    for training in (True, False):
        model.train(training)
        assert measure(model, ids) == expected
        assert all(module.training is training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_is_left_even_when_it_fails() -> None:
    model = build().train()
    with pytest.raises(UserError, match="token id 13 in the data to evaluate on is outside the vocabulary of 13"):
        measure(model, np.array([1, 2, 3, VOCAB]))
    assert model.training


def test_few_logits_are_held_at_a_time_while_many_rows_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a large vocabulary, the rows of a pass used to be as few as their logits allowed."""
    model, ids = Watched(), draw_ids(100)
    expected = measure(model, ids)
    monkeypatch.setattr(limits, "MAX_LOGITS", 3 * VOCAB)
    model.seen.clear()
    model.headed.clear()
    got = measure(model, ids)
    assert (got.loss, got.tokens) == (pytest.approx(expected.loss), expected.tokens)
    assert [len(tokens) for tokens in model.seen] == [12, 1]  # all whole windows, and the shorter one
    assert max(model.headed) == 3


def test_few_features_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = Watched(), draw_ids(100)
    expected = measure(model, ids)
    monkeypatch.setattr(limits, "MAX_FEATURES", 5 * BLOCK)  # n_embd is 1
    model.seen.clear()
    assert measure(model, ids).loss == pytest.approx(expected.loss)
    assert max(len(tokens) for tokens in model.seen) == 5


def test_gpt2_in_passes_of_many_rows() -> None:
    """What a pass held before was 2 rows of GPT-2: a GPU had too little to do."""
    assert limits.rows_per_pass(GPT2Config(), 1024, 64) == 42
    assert limits.rows_per_pass(GPT2Config(n_embd=64, n_head=1), 64, 64) == 64
    assert limits.rows_per_pass(GPT2Config(n_embd=1 << 20, n_head=1), 1024, 64) == 1


@pytest.mark.parametrize("eot_id", [None, 3])
def test_the_head_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch, eot_id: int | None) -> None:
    tokens: TokenArray = FakeTokens(draw_ids(100))  # type: ignore[assignment]
    whole = evaluate(build(), tokens, BYTES, CPU, eot_id=eot_id)
    monkeypatch.setattr(limits, "MAX_LOGITS", 7 * VOCAB)
    assert evaluate(build(), tokens, BYTES, CPU, eot_id=eot_id).loss == pytest.approx(whole.loss, rel=1e-6)


@pytest.mark.parametrize("n_tokens", [0, 1])
def test_too_few_tokens(n_tokens: int) -> None:
    with pytest.raises(UserError, match=rf"cannot evaluate on {n_tokens} token"):
        measure(Watched(), draw_ids(n_tokens))


def test_tokens_on_disk_over_several_shards(tmp_path: Path) -> None:
    ids = draw_ids(60)
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for path, piece in zip(paths, np.split(ids, [7, 30]), strict=True):
        write_shard(path, piece, dtype_for(VOCAB))
    model = build()
    assert evaluate(model, TokenArray(paths), BYTES, CPU) == measure(model, ids)


def test_bfloat16_gives_about_the_same() -> None:
    model, ids = build(), draw_ids(200)
    tokens: TokenArray = FakeTokens(ids)  # type: ignore[assignment]
    low = evaluate(model, tokens, BYTES, Runtime(torch.device("cpu"), "bfloat16"))
    assert low.loss != measure(model, ids).loss
    assert low.loss == pytest.approx(measure(model, ids).loss, rel=0.01)


def test_bytes_of_each_token() -> None:
    tokenizer = CharTokenizer.train("aé漢\U0001f600")
    sizes = bytes_per_token(tokenizer)
    assert {char: sizes[tokenizer.encode(char)[0]] for char in "aé漢\U0001f600"} == {
        "a": 1, "é": 2, "漢": 3, "\U0001f600": 4
    }  # fmt: skip


def test_perplexity_of_a_hopeless_model_is_still_a_number() -> None:
    assert math.isfinite(Evaluation(loss=1e6, bits_per_byte=1.0, tokens=1).perplexity)


def sliding_losses_by_hand(ids: np.ndarray, stride: int) -> list[float]:
    """Hugging Face's loop of overlapping windows, one at a time, in float64."""
    model = build().double().eval()
    losses: list[float] = []
    previous_end = 0
    for begin in range(0, len(ids), stride):
        end = min(begin + BLOCK, len(ids))
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.from_numpy(ids[None, begin:end]))[0], dim=-1)
        for target in range(max(previous_end, 1), end):
            losses.append(-logprobs[target - begin - 1, ids[target]].item())
        previous_end = end
        if end == len(ids):
            break
    return losses


@settings(max_examples=40)
@given(n_tokens=st.integers(2, 60), stride=st.integers(1, BLOCK - 1), rows=st.integers(1, 5))
def test_sliding_windows_count_every_target_once(n_tokens: int, stride: int, rows: int) -> None:
    ids = draw_ids(n_tokens, seed=n_tokens)
    tokens: TokenArray = FakeTokens(ids)  # type: ignore[assignment]
    got = evaluate(build(), tokens, BYTES, CPU, stride=stride, rows=rows)
    losses = np.array(sliding_losses_by_hand(ids, stride))
    sizes = BYTES[ids[1:]]
    assert got.tokens == len(losses) == n_tokens - 1
    assert got.loss == pytest.approx(losses.mean(), rel=1e-5)
    bits = losses[sizes > 0].sum() / math.log(2)
    assert got.bits_per_byte == pytest.approx(bits / max(1, sizes.sum()), rel=1e-5)


@pytest.mark.parametrize("stride", [-1, 0, BLOCK])
def test_a_stride_that_leaves_no_context(stride: int) -> None:
    tokens: TokenArray = FakeTokens(draw_ids(20))  # type: ignore[assignment]
    with pytest.raises(UserError, match=f"stride {stride} is out of range: .* below block_size = {BLOCK}"):
        evaluate(build(), tokens, BYTES, CPU, stride=stride)
