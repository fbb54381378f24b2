"""Speculative decoding: the same distribution as the model alone, whoever makes the drafts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.generation.engine import generate
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.speculative import Drafter, DraftModel, Lookup, accept, generate_speculatively
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s10_decoder import DecoderModel
from glassgpt.models.modern import Modern, ModernConfig

BLOCK, VOCAB, PADDED = 16, 7, 9
GREEDY = SamplingConfig(temperature=0.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def woken(model: Model, seed: int = 0, std: float = 0.4) -> Model:
    generator = seeded(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return model.eval()


LARGE = woken(GPT2(GPT2Config(PADDED, BLOCK, n_layer=2, n_head=2, n_embd=16)))
BANDED = woken(GPT3(GPT3Config(PADDED, BLOCK, n_layer=2, n_head=2, n_embd=16, band_width=3)))
ROLLING = woken(Modern(ModernConfig(PADDED, BLOCK, n_layer=2, n_head=2, n_embd=16, ngram=3, ngram_rows=31)))
SMALL = woken(GPT2(GPT2Config(PADDED, 12, n_layer=1, n_head=1, n_embd=8)), seed=1)
DECODER = woken(DecoderModel(LadderConfig(PADDED, BLOCK, n_layer=1, n_head=1, n_embd=8)))


class Guess:
    """Proposes what somebody wrote down before, right or wrong."""

    def __init__(self, guesses: list[list[int]]) -> None:
        self.guesses = iter(guesses)

    def draft(self, ids: Sequence[int], n: int, config: object, generator: object) -> tuple[list[int], Tensor | None]:
        return next(self.guesses, [])[:n], None


some_ids = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=BLOCK + 2)


@pytest.mark.parametrize("model", [LARGE, BANDED, ROLLING, DECODER])
@given(prompt=some_ids, guesses=st.lists(some_ids, max_size=8), n_drafts=st.integers(0, 5), n=st.integers(0, 20))
@settings(max_examples=8)
def test_greedy_text_is_that_of_the_model_alone(
    model: Model, prompt: list[int], guesses: list[list[int]], n_drafts: int, n: int
) -> None:
    """Whatever is drafted, within the window and past it, also for a model that takes no context."""
    expected = list(generate(model, prompt, GREEDY, max_new_tokens=n, vocab_size=VOCAB))
    drafters: list[Drafter] = [Guess(guesses), Lookup(3, 1), DraftModel(SMALL, LARGE, vocab_size=VOCAB)]
    for drafter in drafters:
        found = generate_speculatively(
            model, prompt, GREEDY, drafter, max_new_tokens=n, n_drafts=n_drafts, vocab_size=VOCAB
        )
        assert list(found) == expected


def close_to(counts: np.ndarray, expected: np.ndarray) -> bool:
    n = counts.sum()
    return bool(np.all(np.abs(counts - n * expected) < 4 * np.sqrt(n * expected * (1 - expected)) + 1))


@pytest.mark.parametrize("certain", [False, True])
def test_ids_have_the_distribution_of_the_model_whatever_was_drafted(certain: bool) -> None:
    """Two drafts: each id that comes out, after those that were accepted, is drawn as the model draws it."""
    generator, n = seeded(0), 6000
    ours = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.1, 0.1, 0.7], [0.25, 0.25, 0.25, 0.25]])
    theirs = torch.tensor([[0.2, 0.2, 0.2, 0.4], [0.7, 0.1, 0.1, 0.1]])
    first, second, third = np.zeros(4), np.zeros(4), np.zeros(4)
    drawn = torch.multinomial(theirs, n, replacement=True, generator=generator).t().tolist()
    for drafts in drawn:
        drafts = [1, 3] if certain else drafts
        chosen = accept(drafts, None if certain else theirs, ours, generator)
        assert chosen[:-1] == drafts[: len(chosen) - 1]
        first[chosen[0]] += 1
        if len(chosen) > 1:
            second[chosen[1]] += 1
        if len(chosen) > 2:
            third[chosen[2]] += 1
    for counts, expected in zip((first, second, third), ours.numpy(), strict=True):
        assert counts.sum() > 500
        assert close_to(counts, expected)


def test_what_both_think_alike_is_always_accepted() -> None:
    ours = torch.tensor([[0.1, 0.9], [0.6, 0.4], [1.0, 0.0]])
    for seed in range(50):
        assert accept([1, 0], ours[:2], ours, seeded(seed)) == [1, 0, 0]


def test_a_draft_that_the_model_never_writes_is_refused() -> None:
    ours = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    for theirs in (None, torch.tensor([[0.5, 0.5]])):
        assert accept([0], theirs, ours, seeded(0)) == [1]


class Counting(GPT2):
    passes = 0

    def features(self, tokens: Tensor, **context: object) -> Tensor:
        self.passes += 1
        return super().features(tokens, **context)  # type: ignore[arg-type]


def test_drafts_that_are_accepted_save_passes() -> None:
    model = Counting(GPT2Config(VOCAB, 64, n_layer=1, n_head=1, n_embd=8))
    woken(model)
    [*whole] = generate(model, [1], GREEDY, max_new_tokens=40)
    model.passes = 0
    perfect = Guess([whole[start + 0 : start + 4] for start in range(0, 40, 5)])
    assert list(generate_speculatively(model, [1], GREEDY, perfect, max_new_tokens=40)) == whole
    assert model.passes == 8  # four drafts and one more id each


def test_the_same_model_as_its_own_draft_is_always_right() -> None:
    model = Counting(GPT2Config(VOCAB, 64, n_layer=1, n_head=1, n_embd=8))
    woken(model)
    drafter = DraftModel(woken(GPT2(model.config)), model)
    config = SamplingConfig(0.9, top_k=4)
    text = generate_speculatively(model, [1, 2], config, drafter, max_new_tokens=50, generator=seeded(3))
    assert len(list(text)) == 50
    assert model.passes == 10


def test_a_row_of_ids_that_came_before_is_found_and_the_last_place_counts() -> None:
    lookup = Lookup(longest=3, shortest=2)
    text = [1, 2, 3, 4, 1, 2, 5, 6, 1, 2]
    assert lookup.draft(text, 3, GREEDY, None) == ([5, 6, 1], None)
    assert lookup.draft([*text, 3], 2, GREEDY, None) == ([4, 1], None)
    assert lookup.draft([*text, 3, 0], 2, GREEDY, None) == ([], None)
    assert Lookup().draft([1], 4, GREEDY, None) == ([], None)
    assert Lookup().draft([1, 1, 1], 4, GREEDY, None) == ([1], None)


def test_a_draft_model_must_have_the_same_vocabulary_and_a_cache() -> None:
    other = GPT2(GPT2Config(PADDED + 1, BLOCK, n_layer=1, n_head=1, n_embd=8))
    with pytest.raises(UserError, match="the draft model has a vocabulary of 10 ids, and the model one of 9: a draft"):
        DraftModel(other, LARGE)
    with pytest.raises(UserError, match="the draft model, a DecoderModel, takes no context"):
        DraftModel(DECODER, LARGE)


def test_an_empty_prompt_is_refused_and_nothing_may_be_asked_for() -> None:
    with pytest.raises(UserError, match="the prompt is empty"):
        next(generate_speculatively(LARGE, [], GREEDY, Lookup(), max_new_tokens=3))
    assert list(generate_speculatively(LARGE, [1], GREEDY, Lookup(), max_new_tokens=0)) == []
