"""Log-likelihoods of continuations against one row at a time in float64, and how pairs are cut and encoded."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from glassgpt.errors import UserError
from glassgpt.evaluation import logits as limits
from glassgpt.evaluation.scoring import Pair, Scores, encode_pair, score
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER

CPU = Runtime(torch.device("cpu"), "float32")
BLOCK, VOCAB, PADDED = 8, 5, 7

ids = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12)


AnyGPT2 = TypeVar("AnyGPT2", bound=GPT2)


def build(dropout: float = 0.0, of: type[AnyGPT2] = GPT2) -> AnyGPT2:
    torch.manual_seed(0)
    model = of(GPT2Config(VOCAB, BLOCK, n_layer=2, n_head=2, n_embd=16, dropout=dropout, padded_vocab_size=PADDED))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def measure(model: Model, pairs: list[Pair]) -> Scores:
    return score(model, pairs, CPU)


def by_hand(pair: Pair) -> tuple[float, bool]:
    """One token after another, each with as much of what is left of the text as fits, in float64."""
    model = build().double().eval()
    text = [*pair.context, *pair.continuation][-(BLOCK + 1) :]
    first = max(1, len(text) - len(pair.continuation))
    total, greedy = 0.0, True
    for at in range(first, len(text)):
        with torch.no_grad():
            logprobs = model(torch.tensor([text[:at]]))[0, -1].log_softmax(dim=-1)
        total += logprobs[text[at]].item()
        greedy = greedy and int(logprobs.argmax()) == text[at]
    return total, greedy


@settings(max_examples=30)
@given(st.lists(st.builds(Pair, ids, ids), min_size=1, max_size=9))
def test_equal_to_one_row_at_a_time(pairs: list[Pair]) -> None:
    got = measure(build(), pairs)
    expected = [by_hand(pair) for pair in pairs]
    assert got.logprobs == pytest.approx([total for total, _ in expected], rel=1e-5, abs=1e-5)
    assert got.greedy.tolist() == [greedy for _, greedy in expected]


def test_some_continuations_are_greedy() -> None:
    pairs = [Pair([1, 2], [id]) for id in range(VOCAB)]
    assert measure(build(), pairs).greedy.sum() == 1


class Counting(GPT2):
    """A GPT-2 that remembers how many positions its head was shown."""

    headed: tuple[int, ...] = ()

    def head(self, features: Tensor) -> Tensor:
        self.headed += (features.shape[:-1].numel(),)
        return super().head(features)


def test_only_positions_that_predict_a_target_go_through_the_head() -> None:
    pairs = [Pair([1, 2, 3, 4], [0, 1]), Pair([1], [2, 3, 4]), Pair([0] * 30, [4])]
    model = build(of=Counting)
    expected = measure(build(), pairs)
    assert measure(model, pairs).logprobs.tolist() == expected.logprobs.tolist()
    assert model.headed == (2 + 3 + 1,)


def test_few_logits_are_held_at_a_time_while_many_rows_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    pairs = [Pair(draw.integers(VOCAB, size=n).tolist(), [0, 1]) for n in draw.integers(1, BLOCK, size=30)]
    expected = measure(build(), pairs)
    monkeypatch.setattr(limits, "MAX_LOGITS", 7 * VOCAB)
    shapes: list[torch.Size] = []
    model = build(of=Counting)
    model.token_embedding.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    got = measure(model, pairs)
    assert got.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert [rows for rows, _ in shapes] == [30]
    assert max(model.headed) == 7


def test_few_features_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    pairs = [Pair(draw.integers(VOCAB, size=n).tolist(), [0, 1]) for n in draw.integers(1, BLOCK, size=30)]
    expected = measure(build(), pairs)
    model = build()
    monkeypatch.setattr(limits, "MAX_FEATURES", 3 * BLOCK * model.config.n_embd)
    shapes: list[torch.Size] = []
    model.token_embedding.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    assert measure(model, pairs).logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert max(rows * length for rows, length in shapes) <= 3 * BLOCK
    assert [length for _, length in shapes] == sorted((length for _, length in shapes), reverse=True)


class NoFloat64(TorchDispatchMode):
    """Fails where torch makes a float64 tensor, which an Apple GPU cannot."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        assert not any(value.dtype == torch.float64 for value in tree_leaves(made) if isinstance(value, Tensor)), func
        return made


def test_torch_makes_no_float64() -> None:
    with NoFloat64():
        got = measure(build(), [Pair([1, 2], [3, 4])])
    assert got.logprobs.dtype == np.float64


def test_draws_no_random_number_and_leaves_the_mode() -> None:
    model = build(dropout=0.5).train()
    before = torch.get_rng_state()
    assert measure(model, [Pair([1], [2])]).logprobs == pytest.approx([by_hand(Pair([1], [2]))[0]], rel=1e-5)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_counts_rows() -> None:
    heard: list[tuple[int, int]] = []
    score(build(), [Pair([1], [2])] * 70, CPU, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(64, 70), (70, 70)]


@pytest.mark.parametrize(
    ("pair", "message"),
    [(Pair([], [1]), "without a context"), (Pair([1], []), "without a continuation"), (Pair([1], [5]), "token id 5")],
)
def test_what_cannot_be_scored(pair: Pair, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure(build(), [pair])


def test_spaces_at_the_end_of_the_context_are_scored() -> None:
    tokenizer = CharTokenizer.train("ab ")
    pair = encode_pair(tokenizer, "ab ", "ba")
    assert (tokenizer.decode(pair.context), tokenizer.decode(pair.continuation)) == ("ab", " ba")


def test_a_context_begins_with_the_token_that_begins_every_text() -> None:
    tokenizer = BPETokenizer(dict(enumerate(BYTE_ORDER)), [], ["<s>"], bos_token="<s>")
    plain = BPETokenizer(dict(enumerate(BYTE_ORDER)), [], ["<s>"])
    context, continuation = encode_pair(plain, "a cat", " sat")
    assert encode_pair(tokenizer, "a cat", " sat") == Pair([256, *context], continuation)
