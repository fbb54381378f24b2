"""Sampling against a naive reference in numpy; generation against a loop that computes everything again."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.generation.engine import generate
from glassgpt.generation.sampling import SamplingConfig, choose, next_token_probabilities
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.ladder import SECTIONS, LadderConfig

BLOCK, VOCAB, PADDED = 8, 13, 16
GREEDY = SamplingConfig(temperature=0.0)

# Hundredths: no two different logits so near to each other that rounding could change their order.
some_logits = st.lists(st.integers(-500, 500).map(lambda x: x / 100), min_size=1, max_size=12, unique=True)


def build(dropout: float = 0.0) -> GPT2:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(PADDED, BLOCK, n_layer=2, n_head=2, n_embd=16, dropout=dropout))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def probabilities(logits: list[float], config: SamplingConfig) -> np.ndarray:
    return next_token_probabilities(torch.tensor([logits]), config)[0].numpy()


def probabilities_by_hand(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> tuple[np.ndarray, float]:
    """The distribution in float64, and how near to p the mass before any token came."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])[: top_k or len(logits)]
    weights = {i: math.exp((logits[i] - max(logits)) / temperature) for i in order}
    mass, kept, nearest = 0.0, {}, math.inf
    for i in order:
        nearest = min(nearest, abs(mass - (top_p or 2.0)))
        if mass >= (top_p or 2.0):
            break
        kept[i] = weights[i] / sum(weights.values())
        mass += kept[i]
    return np.array([kept.get(i, 0.0) / mass for i in range(len(logits))]), nearest


@given(
    some_logits,
    st.floats(0.05, 10),
    st.none() | st.integers(1, 15),
    st.none() | st.floats(0.01, 1.0, exclude_min=True),
)
@settings(max_examples=200)
def test_the_distribution_is_that_of_a_naive_reference(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    expected, nearest = probabilities_by_hand(logits, temperature, top_k, top_p)
    assume(nearest > 1e-5)  # where the mass is just p, rounding decides whether one token more is kept
    got = probabilities(logits, SamplingConfig(temperature, top_k, top_p))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-7)


def test_figures_by_hand() -> None:
    logits = [math.log(p) for p in (0.1, 0.4, 0.2, 0.3)]
    near = pytest.approx
    assert probabilities(logits, SamplingConfig()).tolist() == near([0.1, 0.4, 0.2, 0.3])
    assert probabilities(logits, SamplingConfig(temperature=0.5)).tolist() == near([1 / 30, 16 / 30, 4 / 30, 9 / 30])
    assert probabilities(logits, SamplingConfig(top_k=2)).tolist() == near([0, 4 / 7, 0, 3 / 7])
    assert probabilities(logits, SamplingConfig(top_p=0.6)).tolist() == near([0, 4 / 7, 0, 3 / 7])
    assert probabilities(logits, SamplingConfig(top_p=0.75)).tolist() == near([0, 4 / 9, 2 / 9, 3 / 9])
    # top-p sees what top-k left: 3/7 of 0.7 is below 0.6 of the rest
    assert probabilities(logits, SamplingConfig(top_k=2, top_p=0.55)).tolist() == near([0, 1, 0, 0])


def test_rows_are_cut_each_for_itself() -> None:
    rows = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    config = SamplingConfig(temperature=0.7, top_k=2, top_p=0.9)
    both = next_token_probabilities(rows, config)
    for row, got in zip(rows, both, strict=True):
        torch.testing.assert_close(got, next_token_probabilities(row[None], config)[0])


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-40, 5e-324])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    assert probabilities([1.0, 80.0, 79.0, -1e4], SamplingConfig(temperature)).tolist() == [0, 1, 0, 0]


def test_equal_logits_keep_exactly_k() -> None:
    assert sorted(probabilities([1.0] * 5, SamplingConfig(top_k=2)).tolist()) == [0, 0, 0, 0.5, 0.5]


@given(some_logits, st.sampled_from([GREEDY, SamplingConfig(top_k=1), SamplingConfig(top_p=1e-9)]))
def test_three_ways_to_be_greedy(logits: list[float], config: SamplingConfig) -> None:
    assert choose(torch.tensor([logits]), config, None).tolist() == [[int(np.argmax(logits))]]


def test_tokens_are_drawn_as_often_as_the_distribution_says() -> None:
    config = SamplingConfig(temperature=0.8, top_k=3)
    logits = [0.5, 2.0, 1.0, -1.0]
    n = 20_000
    drawn = choose(torch.tensor([logits]).expand(n, 4), config, torch.Generator().manual_seed(0))
    assert drawn.shape == (n, 1)
    counts = np.bincount(drawn.flatten().numpy(), minlength=4)
    expected = probabilities_by_hand(logits, 0.8, 3, None)[0]
    assert counts[3] == 0
    np.testing.assert_array_less(np.abs(counts - n * expected), 4 * np.sqrt(n * expected * (1 - expected)) + 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -1.0}, r"temperature -1\.0 is out of range"),
        ({"temperature": math.inf}, "temperature inf is out of range"),
        ({"temperature": math.nan}, "temperature nan is out of range"),
        ({"top_k": 0}, "top-k 0 is out of range: it must be at least 1"),
        ({"top_k": -5}, "top-k -5 is out of range"),
        ({"top_p": 0.0}, r"top-p 0\.0 is out of range"),
        ({"top_p": 2.0}, r"top-p 2\.0 is out of range: it must be above 0 and at most 1"),
        ({"top_p": math.nan}, "top-p nan is out of range"),
    ],
)
def test_a_value_out_of_range_is_named(fields: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SamplingConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [GREEDY, SamplingConfig()])
@pytest.mark.parametrize("largest", [math.nan, math.inf])
def test_logits_of_a_diverged_model_are_refused(config: SamplingConfig, largest: float) -> None:
    with pytest.raises(UserError, match="the model's logits are not finite: its weights have diverged"):
        choose(torch.tensor([[0.0, largest, 1.0]]), config, None)


# Generation


def run(
    model: Model, prompt: list[int], config: SamplingConfig = GREEDY, *, n: int = 20, seed: int = 0
) -> Iterator[int]:
    return generate(
        model, prompt, config,
        max_new_tokens=n, vocab_size=VOCAB, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def generate_naively(model: Model, prompt: list[int], config: SamplingConfig, n: int, seed: int) -> list[int]:
    """Every token from a whole pass over the last BLOCK tokens, without a cache."""
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    ids = list(prompt)
    for _ in range(n):
        with torch.no_grad():
            logits = model(torch.tensor([ids[-BLOCK:]]))[:, -1, :VOCAB]
        ids.append(int(choose(logits, config, generator)))
    return ids[len(prompt) :]


@given(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=2 * BLOCK),
    st.sampled_from([GREEDY, SamplingConfig(), SamplingConfig(0.7, top_k=5), SamplingConfig(1.3, top_p=0.8)]),
    st.integers(0, 1000),
)
@settings(max_examples=25)
def test_the_cache_and_the_rolling_window_change_nothing(prompt: list[int], config: SamplingConfig, seed: int) -> None:
    """Prompts shorter and longer than block_size, and writing across its edge."""
    expected = generate_naively(build(), prompt, config, 2 * BLOCK, seed)
    assert list(run(build(), prompt, config, n=2 * BLOCK, seed=seed)) == expected


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_section_of_the_ladder_recomputes_the_text_for_each_token(section: object) -> None:
    torch.manual_seed(0)
    model = section.model(LadderConfig(PADDED, BLOCK, n_layer=2, n_head=2, n_embd=16))  # type: ignore[attr-defined]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    config = SamplingConfig()
    assert list(run(model, [1, 2, 3], config, n=15)) == generate_naively(model, [1, 2, 3], config, 15, seed=0)


class Counting(GPT2):
    """Notes how many positions each pass computes."""

    def features(self, tokens: Tensor, **context: object) -> Tensor:
        self.lengths = [*getattr(self, "lengths", []), tokens.size(1)]
        return super().features(tokens, **context)  # type: ignore[arg-type]


def test_a_cached_token_costs_one_row() -> None:
    model = Counting(GPT2Config(PADDED, BLOCK, n_layer=1, n_head=1, n_embd=4))
    list(run(model, [1, 2, 3], n=8))
    assert model.lengths == [3, 1, 1, 1, 1, 1, BLOCK, BLOCK]


def test_ids_that_the_tokenizer_lacks_are_never_written() -> None:
    model = build()
    with torch.no_grad():
        model.token_embedding.weight[VOCAB:] *= 100
    assert max(run(model, [1], SamplingConfig(temperature=5.0), n=100)) < VOCAB


def test_the_same_seed_writes_the_same_and_touches_no_other_generator() -> None:
    before = torch.get_rng_state()
    model = build()
    torch.set_rng_state(before)
    first = list(run(model, [1], SamplingConfig(), seed=3))
    assert list(run(model, [1], SamplingConfig(), seed=3)) == first
    assert list(run(model, [1], SamplingConfig(), seed=4)) != first
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_put_back(training: bool) -> None:
    model = build(dropout=0.5).train(training)
    assert list(run(model, [1, 2])) == list(run(build(), [1, 2]))
    assert model.training is training
    stream = run(model, [1, 2])
    next(stream)
    stream.close()  # a reader that has enough
    assert model.training is training


def test_tokens_come_one_at_a_time_with_gradients_on_outside() -> None:
    stream = run(build(), [1])
    next(stream)
    assert torch.is_grad_enabled()
    assert len(list(stream)) == 19


def test_nothing_to_write() -> None:
    assert list(run(build(), [1], n=0)) == []


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="the prompt is empty"):
        next(run(build(), []))
