"""Many requests at once: each gets what it gets alone, whatever its neighbours do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.generation.engine import Engine, Piece, Request, generate, generate_batch
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.stopping import TextUntil
from glassgpt.models import ContextModel, Model
from glassgpt.models.context import Documents
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config
from glassgpt.models.gpt_oss import GPTOss, GPTOssConfig
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s10_decoder import DecoderModel
from glassgpt.models.llama import Llama, LlamaConfig
from glassgpt.models.modern import Modern, ModernConfig
from glassgpt.models.qwen3 import Qwen3, Qwen3Config
from glassgpt.tokenizers.char import CharTokenizer

BLOCK, VOCAB, PADDED = 12, 13, 16
GREEDY = SamplingConfig(temperature=0.0)
BUILDERS: dict[str, Callable[[], Model]] = {
    "gpt2": lambda: GPT2(GPT2Config(PADDED, BLOCK, n_layer=2, n_head=2, n_embd=16)),
    "gpt3": lambda: GPT3(GPT3Config(PADDED, BLOCK, n_layer=2, n_head=2, n_embd=16, band_width=3)),
    "modern": lambda: Modern(ModernConfig(PADDED, BLOCK, n_layer=2, n_head=2, n_embd=16, ngram=4, ngram_rows=31)),
    "llama": lambda: Llama(
        LlamaConfig(PADDED, BLOCK, 2, 4, 16, n_kv_head=2, tied=True, rope_factor=4.0, rope_length=4)
    ),
    "qwen3": lambda: Qwen3(Qwen3Config(PADDED, BLOCK, 2, 2, 16, n_kv_head=1, head_size=6, tied=False)),
    "gpt_oss": lambda: GPTOss(
        GPTOssConfig(PADDED, BLOCK, 2, 4, 16, n_kv_head=2, head_size=6, n_expert=5, n_active=2, band_width=3)
    ),
    "decoder": lambda: DecoderModel(LadderConfig(PADDED, BLOCK, 2, 2, 16)),  # takes no context
}


def build(name: str = "gpt2") -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BUILDERS[name]()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model.eval()


MODELS = {name: build(name) for name in BUILDERS}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def request(prompt: list[int], sampling: SamplingConfig = GREEDY, n: int = 8, *, seed: int = 0) -> Request:
    return Request(prompt, sampling, n, generator=seeded(seed))


class SlidingWindow(Documents):
    """One text as a whole, of any length, in which each position attends to the last BLOCK, or in a band to fewer."""

    def __init__(self) -> None:
        pass

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        return torch.arange(n_tokens)

    def append(self, layer: int, k: Tensor, v: Tensor, *, window: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        distance = torch.arange(k.size(2))[:, None] - torch.arange(k.size(2))
        return k, v, ((distance >= 0) & (distance < min(BLOCK, window or BLOCK)))[None, None]


@torch.no_grad()
def logprobs_naively(model: Model, prompt: list[int], ids: list[int]) -> list[float]:
    """Each from a whole pass over the last BLOCK tokens, or from one pass with a sliding window where keys are kept."""
    whole, found = [*prompt, *ids], []
    if isinstance(model, ContextModel) and model.relative_positions:
        whole = [*prompt[-BLOCK:], *ids]
        logits = model(torch.tensor([whole[:-1]]), context=SlidingWindow())[0, -len(ids) :, :VOCAB]
        return [float(row[id]) for row, id in zip(logits.log_softmax(dim=-1), ids, strict=True)]
    for end in range(len(prompt), len(whole)):
        logits = model(torch.tensor([whole[max(end - BLOCK, 0) : end]]))[0, -1, :VOCAB]
        found.append(float(logits.log_softmax(dim=0)[whole[end]]))
    return found


some_prompts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=BLOCK + 4)
some_samplings = st.sampled_from([GREEDY, SamplingConfig(0.7, top_k=5), SamplingConfig(1.3, top_p=0.8)])


@pytest.mark.parametrize("name", MODELS)
@given(st.lists(st.tuples(some_prompts, some_samplings, st.integers(1, 16)), min_size=1, max_size=5), st.integers(1, 4))
@settings(max_examples=15)
def test_a_request_gets_in_a_batch_what_it_gets_alone(
    name: str, asked: list[tuple[list[int], SamplingConfig, int]], slots: int
) -> None:
    """Prompts of any length, texts within the window and past it, more requests than slots."""
    model = MODELS[name]
    requests = [request(*one, seed=seed) for seed, one in enumerate(asked)]
    completions = generate_batch(model, requests, slots=slots, vocab_size=VOCAB)
    for seed, ((prompt, sampling, n), completion) in enumerate(zip(asked, completions, strict=True)):
        alone = generate(model, prompt, sampling, max_new_tokens=n, vocab_size=VOCAB, generator=seeded(seed))
        assert completion.ids == list(alone)
        assert completion.logprobs == pytest.approx(logprobs_naively(model, prompt, completion.ids), abs=1e-5)
        assert (completion.text, completion.finish) == ("", "length")


class Watched(GPT2):
    """Notes the shape of the tokens of each pass, whether it was cached, and the rows whose logits are computed."""

    def features(self, tokens: Tensor, *, context: object = None) -> Tensor:
        self.passes = [*getattr(self, "passes", []), (*tokens.shape, context is not None)]
        return super().features(tokens, context=context)  # type: ignore[arg-type]

    def head(self, features: Tensor) -> Tensor:
        self.heads = [*getattr(self, "heads", []), tuple(features.shape)]
        return super().head(features)


def test_prompts_and_single_tokens_are_separate_passes_and_a_free_slot_is_filled() -> None:
    model = Watched(GPT2Config(PADDED, BLOCK, n_layer=1, n_head=1, n_embd=4))
    requests = [request([1] * 4, n=2), request([1] * 3, n=4), request([1] * 5, n=2)]
    generate_batch(model, requests, slots=2)
    assert model.passes == [
        (2, 4, True),  # the first two prompts, one of them padded
        (2, 1, True),
        (1, 1, True), (1, 5, True),  # the third takes the place of the first
        (2, 1, True),
    ]  # fmt: skip
    assert model.heads == [(2, 4)] * 4


def test_a_text_past_the_window_reads_all_of_it_beside_others_that_need_not() -> None:
    model = Watched(GPT2Config(PADDED, BLOCK, n_layer=1, n_head=1, n_embd=4))
    generate_batch(model, [request([1] * (BLOCK - 1), n=4), request([2], n=4), request([3] * 20, n=1)])
    one, whole = (1, 1, True), (1, BLOCK, False)
    assert model.passes == [(2, BLOCK - 1, True), whole, (2, 1, True), one, whole, one, whole]
    assert model.heads[0] == (3, 4)


def test_a_pass_over_prompts_is_at_most_half_padding() -> None:
    model = Watched(GPT2Config(PADDED, 200, n_layer=1, n_head=1, n_embd=4))
    lengths = [150, 1, 2, 100, 90, 1, 40, 3]
    generate_batch(model, [request([1] * length, n=1) for length in lengths], slots=8)
    assert sum(rows for rows, _, _ in model.passes) == 8
    assert sum(rows * width for rows, width, _ in model.passes) <= 2 * sum(lengths)
    assert len(model.passes) < 5


def test_a_text_ends_with_a_stop_id() -> None:
    [whole] = generate_batch(MODELS["gpt2"], [request([1, 2], SamplingConfig(), 12)], vocab_size=VOCAB)
    stop = whole.ids[5]
    asked = replace(request([1, 2], SamplingConfig(), 12), stop_ids=frozenset({stop, VOCAB}))
    [stopped] = generate_batch(MODELS["gpt2"], [asked], vocab_size=VOCAB)
    assert stopped.ids == whole.ids[: whole.ids.index(stop) + 1]
    assert stopped.finish == "stop"
    assert len(stopped.logprobs) == len(stopped.ids)


LETTERS = CharTokenizer("abcdefghijklm")


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.integers(0, 50))
@settings(max_examples=60)
def test_a_text_ends_before_the_stop_string_that_is_complete_first(stops: list[str], seed: int) -> None:
    """Every stop string of two letters or more takes several ids."""
    sampling = SamplingConfig(top_k=3)
    model = nn_of_three_letters()
    asked = replace(request([0], sampling, 30, seed=seed), stop_strings=tuple(stops))
    [completion] = generate_batch(model, [asked], LETTERS)
    [whole] = generate_batch(model, [request([0], sampling, 30, seed=seed)], LETTERS)
    assert whole.text == LETTERS.decode(whole.ids)
    ends = [whole.text.index(stop) + len(stop) for stop in stops if stop in whole.text]
    n = min(ends, default=30)  # ids until the first stop string is complete
    complete = [whole.text[:n].index(stop) for stop in stops if stop in whole.text[:n]]
    assert completion.ids == whole.ids[:n]
    assert completion.text == whole.text[: min(complete, default=30)]
    assert completion.finish == ("stop" if complete else "length")


def nn_of_three_letters() -> Model:
    """A model that writes a, b and c, each as likely as the others."""
    model = GPT2(GPT2Config(13, 32, n_layer=1, n_head=1, n_embd=4))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        model.norm.bias.fill_(1.0)
        model.token_embedding.weight[:3] = 1.0
    return model


def test_what_may_become_a_stop_string_is_held_back() -> None:
    text = TextUntil(LETTERS, ["abc", "bd"])
    assert [text.feed(id) for id in LETTERS.encode("eabab")] == ["e", "", "", "ab", ""]
    assert text.feed(*LETTERS.encode("d")) == "a"
    assert text.stopped
    text = TextUntil(LETTERS, ["abc"])
    assert [text.feed(id) for id in LETTERS.encode("ab")] == ["", ""]
    assert text.flush() == "ab"


def pieces_of(engine: Engine, number: int) -> list[Piece]:
    return [piece for piece in engine.run() if piece.request == number]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("when", [0, 1, 3])
def test_a_cancelled_request_leaves_its_neighbours_alone(name: str, when: int) -> None:
    """Cancelled while it waits, and in progress, within the window and past it."""
    model, n = MODELS[name], 16
    prompts = [[1, 2, 3], [4, 5], [6], [7, 8]]
    alone = [list(generate(model, prompt, GREEDY, max_new_tokens=n, vocab_size=VOCAB)) for prompt in prompts]
    engine = Engine(model, slots=3, vocab_size=VOCAB)
    for prompt in prompts:
        engine.submit(request(prompt, n=n))
    found: dict[int, list[Piece]] = {number: [] for number in range(4)}
    for step in range(40):
        if step == when:
            engine.cancel(0)
            engine.cancel(3)
        for piece in engine.step():
            found[piece.request].append(piece)
    assert not engine.busy
    engine.cancel(0)
    assert engine.step() == []
    for number, pieces in found.items():
        ids = [piece.id for piece in pieces if piece.id is not None]
        if number in (0, 3):
            assert ids == alone[number][: len(ids)]
            assert len(ids) == (when if number == 0 else 0)
            assert pieces[-1] == Piece(number, finish="cancelled")
        else:
            assert ids == alone[number]
        assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)


@pytest.mark.parametrize("name", MODELS)
def test_where_the_window_may_not_move_on_a_text_ends_with_it(name: str) -> None:
    requests = [request([1] * length, n=5) for length in (BLOCK - 2, BLOCK, BLOCK + 1, 2)]
    found = generate_batch(MODELS[name], requests, vocab_size=VOCAB, past_window=False)
    rolled = generate_batch(MODELS[name], requests, vocab_size=VOCAB)
    ended = [(len(one.ids), one.finish) for one in found]
    assert ended == [(3, "context"), (1, "context"), (0, "context"), (5, "length")]
    assert [one.ids for one in found] == [both.ids[: len(one.ids)] for one, both in zip(found, rolled, strict=True)]


def test_the_text_comes_in_whole_characters() -> None:
    from glassgpt.tokenizers.bpe import BPETokenizer
    from glassgpt.tokenizers.printable import BYTE_ORDER

    tokenizer = BPETokenizer(dict(enumerate(BYTE_ORDER)), [], ())
    euro = tokenizer.encode("€")
    model = GPT2(GPT2Config(256, 8, n_layer=1, n_head=1, n_embd=4))
    engine = Engine(model, tokenizer)
    chosen = iter([*euro, *euro[:1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glassgpt.generation.engine.choose", lambda *_: torch.tensor([[next(chosen)]]))
        number = engine.submit(request([0], n=4))
        assert [piece.text for piece in pieces_of(engine, number)] == ["", "", "€", "�"]


def test_requests_may_come_while_others_run() -> None:
    engine = Engine(MODELS["gpt2"], vocab_size=VOCAB)
    first = engine.submit(request([1], n=6))
    engine.step()
    second = engine.submit(request([2, 3], n=2))
    found = list(engine.run())
    assert [piece.request for piece in found] == [first, second, first, second, first, first, first]
    ids = [piece.id for piece in found if piece.request == second]
    assert ids == list(generate(MODELS["gpt2"], [2, 3], GREEDY, max_new_tokens=2, vocab_size=VOCAB))


def test_a_request_without_a_generator_draws_its_own_seed() -> None:
    before = torch.get_rng_state()
    texts = {tuple(one.ids) for one in generate_batch(build(), [Request([1], SamplingConfig(), 20)] * 3)}
    assert len(texts) == 3
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: Request([], GREEDY, 1), "the prompt is empty"),
        (lambda: Request([1], GREEDY, 0), "max_new_tokens 0 is out of range: it must be at least 1"),
        (lambda: Engine(MODELS["gpt2"], slots=0), "slots 0 is out of range: it must be at least 1"),
        (lambda: Engine(MODELS["gpt2"]).submit(request([PADDED])), "the prompt has the id 16, and .* ids 0 to 15"),
        (lambda: Engine(MODELS["gpt2"]).submit(request([-1])), "the prompt has the id -1"),
        (
            lambda: Engine(MODELS["gpt2"]).submit(replace(request([1]), stop_strings=("a",))),
            "stop strings need a tokenizer",
        ),
        (
            lambda: Engine(MODELS["gpt2"], LETTERS).submit(replace(request([1]), stop_strings=("",))),
            "a stop string is empty",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask()
