"""As test_planted_faults.py, for encoders that find hidden tokens and encoder-decoders that write targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from subjects import small_config
from torch import Tensor, nn

from glassgpt.data.corpora import text_corpus
from glassgpt.data.masking import HiddenRows, MaskedLoader
from glassgpt.data.pair_loader import PairLoader, PairRows
from glassgpt.doctor import learning_checks
from glassgpt.doctor.data_checks import check_hidden, check_ids, check_loader, check_pairs
from glassgpt.doctor.diagnosis import CHECKS, examine
from glassgpt.doctor.learning_checks import check_one_batch
from glassgpt.doctor.model_checks import check_gradients, check_initial_loss
from glassgpt.doctor.overlap import check_pair_overlap
from glassgpt.doctor.sight_checks import check_both_sides, check_source, check_target_future
from glassgpt.doctor.subject import MaskedSubject, PairSubject, Subject, build_subject
from glassgpt.models.attention import Attention
from glassgpt.runs.stages import find_stage
from glassgpt.runtime.device import build_runtime

ENCODER = {
    "run__stage": "mlm", "model__architecture": "bert", "tokenizer__special_tokens": ["[MASK]"], "optimizer__lr": 3e-3,
}  # fmt: skip
PAIRS = {
    "run__stage": "seq2seq", "model__architecture": "transformer", "tokenizer__special_tokens": ["<|endoftext|>"],
    "data__pairs": "reverse", "optimizer__lr": 3e-3,
}  # fmt: skip
S = TypeVar("S", bound=Subject)
WORDS = " ".join(f"{a}{b}{c}{d}" for a in "fgkptv" for b in "aeiou" for c in "fgkp" for d in "ae")


def build(text: str, **changes: Any) -> Subject:
    config = small_config(**changes)
    stage = find_stage(config.run.stage)
    manifest, tokenizer, _ = stage.prepare(config, text_corpus(text))
    dataset = stage.open_data(manifest, tokenizer)
    config = small_config(**changes, model__vocab_size=tokenizer.vocab_size)
    return build_subject(config, dataset, build_runtime("cpu", "float32"))


@pytest.fixture(scope="module")
def masked(text: str) -> MaskedSubject:
    subject = build(text, **ENCODER)
    assert isinstance(subject, MaskedSubject)
    return subject


@pytest.fixture(scope="module")
def pairs() -> PairSubject:
    subject = build(WORDS, **PAIRS)
    assert isinstance(subject, PairSubject)
    return subject


def with_model(subject: S, change: Callable[[Any], None]) -> S:
    """The same subject, but `change` is done to each fresh model."""

    def build() -> nn.Module:
        model: nn.Module = subject.build()
        change(model)
        return model

    return replace(subject, build=build)


class Changed:
    """A loader whose rows are changed by a function."""

    def __init__(self, loader: Any, change: Callable[[Any], Any]) -> None:
        self.loader, self.change = loader, change
        self.batch_rows, self.hider = loader.batch_rows, getattr(loader, "hider", None)

    def rows(self, step: int, start: int = 0, stop: int | None = None) -> Any:
        return self.change(self.loader.rows(step, start, stop))


def with_rows(subject: S, change: Callable[[Any], Any]) -> S:
    return replace(subject, open_loader=lambda: Changed(subject.open_loader(), change))


# --- in good health ---------------------------------------------------------------------------------------------------


def test_a_healthy_encoder_passes_every_check(masked: MaskedSubject) -> None:
    findings = list(examine(masked))
    assert len(findings) == len(CHECKS[MaskedSubject]) == 10
    assert [finding for finding in findings if finding.status != "passed"] == []


@pytest.mark.parametrize("architecture", ["transformer", "t5"])
def test_a_healthy_encoder_decoder_passes_every_check(architecture: str) -> None:
    subject = build(WORDS, **(PAIRS | {"model__architecture": architecture}))
    findings = list(examine(subject))
    assert len(findings) == len(CHECKS[PairSubject]) == 11
    assert [finding for finding in findings if finding.status != "passed"] == []


def test_berts_frame_is_no_text(text: str) -> None:
    """[CLS] and [SEP] stand around each row, are never hidden, and take no part in the share of hidden tokens."""
    subject = build(text, **(ENCODER | {"tokenizer__special_tokens": ["[MASK]", "[CLS]", "[SEP]"]}))
    assert isinstance(subject, MaskedSubject)
    assert check_hidden(subject).status == "passed"


# --- data -------------------------------------------------------------------------------------------------------------


def shown(rows: HiddenRows) -> HiddenRows:
    """Hides nothing."""
    inputs = rows.inputs.copy()
    np.put_along_axis(inputs, rows.places, rows.targets, axis=1)
    return replace(rows, inputs=inputs)


def one_place_off(rows: HiddenRows) -> HiddenRows:
    return replace(rows, places=np.maximum(rows.places - 1, 0))


def all_masked(rows: HiddenRows) -> HiddenRows:
    return replace(rows, inputs=np.full_like(rows.inputs, rows.inputs.max()))


def half_as_many(rows: HiddenRows) -> HiddenRows:
    half = rows.places.shape[1] // 2
    return replace(rows, places=rows.places[:, :half], targets=rows.targets[:, :half])


@pytest.mark.parametrize("fault", [shown, one_place_off, all_masked, half_as_many])
def test_tokens_that_are_not_hidden_as_they_should(masked: MaskedSubject, fault: Callable[[Any], Any]) -> None:
    assert check_hidden(with_rows(masked, fault)).status == "failed"


def test_a_hider_that_draws_from_a_global_generator(masked: MaskedSubject) -> None:
    class Global(MaskedLoader):
        def rows(self, step: int, start: int = 0, stop: int | None = None) -> HiddenRows:
            self.hider.seed = int(torch.randint(1000, ()))
            return super().rows(step, start, stop)

    sizes = masked.config.model.block_size, masked.config.batch_rows
    hider = masked.open_loader().hider
    assert check_loader(replace(masked, open_loader=lambda: Global(masked.train, hider, *sizes))).status == "failed"


def test_targets_of_pairs_that_are_not_the_next_input(pairs: PairSubject) -> None:
    def copied(rows: PairRows) -> PairRows:
        return replace(rows, inputs=rows.targets)

    finding = check_pairs(with_rows(pairs, copied))
    assert finding.status == "failed" and not finding.figure.startswith("0 of")


@pytest.mark.parametrize(("ids", "kept"), [("source", "visible"), ("targets", "mask")])
def test_texts_without_an_end(pairs: PairSubject, ids: str, kept: str) -> None:
    def endless(rows: PairRows) -> PairRows:
        mask = getattr(rows, kept).clone()
        mask[torch.arange(len(mask)), mask.sum(1) - 1] = False
        return replace(rows, **{kept: mask})

    finding = check_pairs(with_rows(pairs, endless))
    assert finding.status == "failed" and f"{pairs.config.batch_rows} of" in finding.figure


def test_a_pair_loader_that_gives_every_rank_the_same_rows(pairs: PairSubject) -> None:
    class Same(PairLoader):
        def rows(self, step: int, start: int = 0, stop: int | None = None) -> PairRows:
            return super().rows(step, 0, (self.batch_rows if stop is None else stop) - start)

    sizes = pairs.config.model.block_size, pairs.config.batch_rows
    faulty = replace(pairs, open_loader=lambda: Same(pairs.pairs.train, pairs.pairs.ends, *sizes))
    finding = check_loader(faulty)
    assert finding.status == "failed" and "two ranks" in finding.figure


def test_validation_pairs_that_are_in_training(pairs: PairSubject) -> None:
    finding = check_pair_overlap(replace(pairs, pairs=replace(pairs.pairs, val=pairs.pairs.train)))
    assert finding.status == "failed" and finding.figure.startswith("100.00%")
    assert check_pair_overlap(pairs).figure.startswith("0.00%")


def test_ids_beyond_the_vocabulary_of_pairs(pairs: PairSubject) -> None:
    sizes: Any = pairs.config.model
    smaller = replace(sizes, vocab_size=pairs.tokenizer.vocab_size - 1)
    assert check_ids(replace(pairs, config=replace(pairs.config, model=smaller))).status == "failed"


# --- what a position sees ---------------------------------------------------------------------------------------------


class Causal(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *args: Any, **more: Any) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def test_an_encoder_with_a_causal_mask(masked: MaskedSubject) -> None:
    def blind(model: Any) -> None:
        for block in model.blocks:
            block.attn.inner = Causal()

    finding = check_both_sides(with_model(masked, blind))
    assert finding.status == "failed" and "no causal mask" in finding.remedy


class Unmasked(Attention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *args: Any, **more: Any) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def test_a_decoder_without_a_mask(pairs: PairSubject) -> None:
    def unmask(model: Any) -> None:
        model.decoder.blocks[1].attn.inner = Unmasked()

    assert check_target_future(with_model(pairs, unmask)).status == "failed"
    assert check_target_future(pairs).status == "passed"


def test_cross_attention_that_sees_padding(pairs: PairSubject) -> None:
    def unmask(model: Any) -> None:
        model.decoder.blocks[0].cross.inner = Unmasked()

    finding = check_source(with_model(pairs, unmask))
    assert finding.status == "failed" and "padding" in finding.figure and "`visible`" in finding.remedy


def test_an_encoder_that_does_not_see_what_follows(pairs: PairSubject) -> None:
    def blind(model: Any) -> None:
        for block in model.encoder.blocks:
            block.attn.inner = Causal()
        for block in model.decoder.blocks:  # only the first token of the source is read
            block.cross.forward = lambda x, *args, **more: 0.0 * x

    finding = check_source(with_model(pairs, blind))
    assert finding.status == "failed" and "cross-attention" in finding.remedy


# --- learning ---------------------------------------------------------------------------------------------------------


def test_cross_attention_that_is_not_used_gets_no_gradient(pairs: PairSubject) -> None:
    def skip(model: Any) -> None:
        model.decoder.blocks[0].cross.forward = lambda x, *args, **more: 0.0 * x

    finding = check_gradients(with_model(pairs, skip))
    assert finding.status == "failed" and "decoder.blocks.0.cross" in finding.figure


@pytest.mark.parametrize("kind", ["masked", "pairs"])
def test_first_weights_that_are_too_large(kind: str, request: pytest.FixtureRequest) -> None:
    def blow_up(model: Any) -> None:
        nn.init.normal_(model.token_embedding.weight, std=1.0)

    assert check_initial_loss(with_model(request.getfixturevalue(kind), blow_up)).status == "failed"


@pytest.mark.parametrize("kind", ["masked", "pairs"])
def test_a_learning_rate_of_nearly_zero_learns_nothing_by_heart(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_checks, "MAX_STEPS", 60)
    subject = request.getfixturevalue(kind)
    slow = replace(subject, config=replace(subject.config, optimizer=replace(subject.config.optimizer, lr=1e-7)))
    assert check_one_batch(slow).status == "failed"


# --- counting ---------------------------------------------------------------------------------------------------------


def test_what_the_frequencies_of_targets_reach(pairs: PairSubject) -> None:
    """An independent count: the letters of the words, and one stop for each."""
    size, texts = pairs.tokenizer.vocab_size, []
    for examples in (pairs.pairs.train, pairs.pairs.val):
        ids = [i for n in range(len(examples)) for i in examples.ids(n)[examples.mask(n)].tolist()]
        texts.append(np.array([ids.count(i) for i in range(size)]))
    train, val = texts
    expected = -(val * np.log((train + 1) / (train.sum() + size))).sum() / val.sum()
    assert pairs.count().frequencies == pytest.approx(expected)
    assert val.sum() == sum(len(word) + 1 for word in WORDS.split()[: len(pairs.pairs.val)])  # all have four letters
