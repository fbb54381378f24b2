"""`glassgpt bench generate`: what it measures, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable

import pytest
import torch

from glassgpt.errors import UserError
from glassgpt.generation.engine import Request, generate_batch
from glassgpt.generation.packed import pack
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.interop.llama_cpp import PACKAGES, LlamaCpp
from glassgpt.interop.peer import Peer, lacks_peer
from glassgpt.models import Model
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt3 import GPT3, GPT3Config
from glassgpt.models.modern import Modern, ModernConfig
from glassgpt.planning import generation_speed
from glassgpt.planning.generation_speed import count_weight_bytes, measure_generation, measure_read_rate
from tests.system.command_line import glassgpt

needs_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")


@pytest.fixture(autouse=True)
def little_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation_speed, "ROOF_BYTES", 1 << 20)


def shaken(model: Model) -> Model:
    """The model with weights that all matter."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def build() -> Model:
    return shaken(GPT2(GPT2Config(50, 32, n_layer=2, n_head=2, n_embd=16, padded_vocab_size=64)))


def build_modern() -> Model:
    return shaken(Modern(ModernConfig(50, 32, n_layer=2, n_head=2, n_embd=16, ngram=1)))


@needs_transformers
@pytest.mark.parametrize("build", [build, build_modern])
def test_the_peer_has_the_same_weights(build: Callable[[], Model]) -> None:
    model, tokens = build(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert lacks_peer(model) is None
    written = Peer(model).write(tokens, 8)
    requests = [Request(row, SamplingConfig(0.0), 8) for row in tokens.tolist()]
    assert written[:, 3:].tolist() == [one.ids for one in generate_batch(model, requests)]


@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="needs llama.cpp")
def test_llama_cpp_has_the_same_weights() -> None:
    model, tokens = build(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    written = LlamaCpp(model, slots=2, positions=11).write(tokens, 8)
    requests = [Request(row, SamplingConfig(0.0), 8) for row in tokens.tolist()]
    assert written[:, 3:].tolist() == [one.ids for one in generate_batch(model, requests)]
    speed = measure_generation(build(), batches=[2], weights=["loaded"], new_tokens=2, peer=False, llama_cpp=True)
    assert speed.rows[0].llama_cpp is not None and speed.rows[0].ratio_to_llama_cpp is not None


def test_where_llama_cpp_cannot_be_measured_one_sentence_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="measured beside GPT-2 only, not beside Modern"):
        measure_generation(build_modern(), new_tokens=2, llama_cpp=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="is not installed: pip install xllamacpp gguf"):
        measure_generation(build(), new_tokens=2, llama_cpp=True)


def test_bytes_of_tables_that_are_looked_up_do_not_count() -> None:
    config = ModernConfig(50, 32, n_layer=2, n_head=2, n_embd=16, ngram=4)
    tables = (50 + 3 * config.ngram_rows) * 16
    model = Modern(config)
    assert count_weight_bytes(model) == 4 * (sum(weight.numel() for weight in model.parameters()) - tables)


def test_bytes_are_those_of_the_weights_that_a_token_reads() -> None:
    model = build()
    expected = 4 * (
        sum(weight.numel() for weight in model.parameters()) - 32 * 16
    )  # without positions; the head is tied
    assert count_weight_bytes(model) == expected
    assert count_weight_bytes(pack(model)) == expected - 4 * 14 * 16  # nor the rows that pad the embedding


def test_a_row_for_each_batch_and_kind_of_weights() -> None:
    speed = measure_generation(
        build(), batches=[1, 3], weights=["float32", "loaded"], new_tokens=2, rounds=2, peer=False
    )
    assert [(row.batch, row.weights) for row in speed.rows] == [
        (1, "float32"), (1, "loaded"), (3, "float32"), (3, "loaded"),
    ]  # fmt: skip
    for row in speed.rows:
        assert len(row.rounds) == 2
        read = speed.read_rates[:2] if row.batch == 1 else speed.read_rates[2:]
        shares = [rate * row.weight_bytes / (row.batch * of) for rate, of in zip(row.rounds, read, strict=True)]
        assert row.share_of_roof == pytest.approx(sum(shares) / 2)  # the median of two
        assert row.ratio_to_transformers is None
    assert speed.notes == ("transformers was left out",)


def test_memory_is_read_at_a_rate() -> None:
    assert 1e6 < measure_read_rate(torch.device("cpu")) < 1e14


def test_what_transformers_does_not_have_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPT3(GPT3Config(50, 32, n_layer=1, n_head=2, n_embd=16))
    assert lacks_peer(model) == "transformers is not measured: it has no model for GPT3"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "it is not installed (pip install" in str(lacks_peer(build()))


def test_the_command_prints_json_and_a_table_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("bench", "generate", "--random", "char-tiny", "--new-tokens", "2", "--rounds", "1", "--batch", "2")
    done = glassgpt(*options, "--weights", "loaded", "--json")
    assert done.code == 0, done.err
    [row] = json.loads(done.out)["rows"]
    assert (row["batch"], row["weights"]) == (2, "loaded")
    assert row["tokens_per_second"] > 0
    monkeypatch.setenv("COLUMNS", "80")
    table = glassgpt(*options, "--no-peer")
    assert table.code == 0, table.err
    assert table.out.startswith("batch  weights")
    assert max(map(len, table.out.splitlines()[:-1])) <= 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name a run to measure, or a recipe with --random, and not both"),
        (("tiny", "--random", "char-tiny"), "name a run to measure, or a recipe with --random, and not both"),
        (("--random", "char-tiny", "--batch", "0"), "--batch 0 is out of range"),
        (("--random", "char-tiny", "--rounds", "0"), "--rounds 0 is out of range"),
        (("--random", "char-tiny", "--batch", "2000000000"), "out of range: it must be at least 1 and at most 1024"),
        (("--random", "char-tiny", "--new-tokens", "64"), "it must fit into the window of 64"),
        (("--random", "char-tiny", "--weights", "int4"), "unknown weights 'int4'"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: tuple[str, ...], message: str) -> None:
    assert message in glassgpt("bench", "generate", *options).error
