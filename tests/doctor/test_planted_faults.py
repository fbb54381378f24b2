"""Each check passes on a healthy subject and finds the fault that it is there for, planted by swapping one part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from subjects import FromRecipe
from torch import Tensor, nn

from glassgpt.data.loader import Loader
from glassgpt.data.shards import TokenArray, write_shard
from glassgpt.doctor.data_checks import check_ids, check_loader, check_targets
from glassgpt.doctor.diagnosis import CHECKS, examine
from glassgpt.doctor.learning_checks import check_one_batch, check_update_ratio
from glassgpt.doctor.model_checks import check_gradients, check_initial_loss, check_precision
from glassgpt.doctor.overlap import check_overlap
from glassgpt.doctor.sight_checks import check_no_future
from glassgpt.doctor.subject import TextSubject
from glassgpt.errors import UserError
from glassgpt.models import ARCHITECTURES
from glassgpt.training.losses import Loss


def with_model(subject: TextSubject, change: Callable[[Any], None]) -> TextSubject:
    """The same subject, but `change` is done to each fresh model."""

    def build() -> nn.Module:
        model = subject.build()
        change(model)
        return model

    return replace(subject, build=build)


def with_loader(subject: TextSubject, loader: type[Loader]) -> TextSubject:
    config = subject.config
    return replace(
        subject, open_loader=lambda: loader(subject.train, config.model.block_size, config.batch_rows, seed=1)
    )


def tokens(folder: Path, ids: Any) -> TokenArray:
    write_shard(folder / "ids.shard", ids, np.dtype("<u2"))
    return TokenArray([folder / "ids.shard"])


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_healthy_subject_passes_every_check(from_recipe: FromRecipe, precision: str) -> None:
    findings = list(examine(from_recipe(precision)))
    assert len(findings) == len(CHECKS[TextSubject])
    assert [finding for finding in findings if finding.status != "passed"] == []


def test_a_loss_in_chunks_is_as_healthy(from_recipe: FromRecipe) -> None:
    findings = list(examine(from_recipe(training__loss_chunk=64)))
    assert [finding for finding in findings if finding.status != "passed"] == []


def test_a_model_without_room_is_a_sentence(healthy: TextSubject) -> None:
    def fill(model: Any) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(UserError, match="out of memory on cpu"):
        list(examine(with_model(healthy, fill)))


# --- the model --------------------------------------------------------------------------------------------------------


def test_first_weights_that_are_too_large(healthy: TextSubject) -> None:
    def blow_up(model: Any) -> None:
        nn.init.normal_(model.token_embedding.weight, std=1.0)

    finding = check_initial_loss(with_model(healthy, blow_up))
    assert finding.status == "failed"
    assert "lower the scale" in finding.remedy


def test_padding_takes_no_part_in_the_first_loss(healthy: TextSubject, from_recipe: FromRecipe) -> None:
    """All ids of the padding would make ln V larger by two nats."""
    padded = from_recipe(model__padded_vocab_size=8 * healthy.tokenizer.vocab_size)
    assert check_initial_loss(padded).status == "passed"
    assert check_initial_loss(padded).expected == check_initial_loss(healthy).expected


class AttentionWithoutMask(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


def test_attention_without_a_mask(healthy: TextSubject) -> None:
    def unmask(model: Any) -> None:
        model.blocks[1].attn.inner = AttentionWithoutMask()

    finding = check_no_future(with_model(healthy, unmask))
    assert finding.status == "failed"
    assert "mask attention" in finding.remedy


def test_a_norm_over_the_rows_of_a_batch(healthy: TextSubject) -> None:
    """Batch norm looks into the future only while it trains."""

    class NormOverPositions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.mean(dim=(0, 1))) / x.std(dim=(0, 1)) if self.training else x

    def swap(model: Any) -> None:
        model.norm = NormOverPositions()

    assert check_no_future(with_model(healthy, swap)).status == "failed"


def test_a_model_that_hears_nothing(healthy: TextSubject) -> None:
    def deafen(model: Any) -> None:
        model.features = lambda tokens, context=None: 0.0 * model.token_embedding(tokens)

    finding = check_no_future(with_model(healthy, deafen))
    assert finding.status == "failed"
    assert "reaches no logit" in finding.remedy


@pytest.mark.parametrize("architecture", [name for name, found in ARCHITECTURES.items() if found.kind == "decoder"])
def test_no_architecture_sees_the_future(from_recipe: FromRecipe, architecture: str) -> None:
    subject = from_recipe(model__architecture=architecture)
    assert check_no_future(subject).status == "passed"
    assert check_initial_loss(subject).status == "passed"
    assert check_gradients(subject).status == "passed"


def test_a_frozen_parameter(healthy: TextSubject) -> None:
    def freeze(model: Any) -> None:
        model.blocks[0].mlp.up.weight.requires_grad_(False)

    finding = check_gradients(with_model(healthy, freeze))
    assert finding.status == "failed"
    assert "blocks.0.mlp.up.weight none" in finding.figure


def test_an_unused_parameter(healthy: TextSubject) -> None:
    def add(model: Any) -> None:
        model.forgotten = nn.Parameter(torch.ones(3, 3))

    finding = check_gradients(with_model(healthy, add))
    assert finding.status == "failed"
    assert "forgotten none" in finding.figure


def test_a_projection_that_begins_as_zeros_is_no_fault(healthy: TextSubject) -> None:
    """At the first step nothing flows through it."""

    def zero(model: Any) -> None:
        for block in model.blocks:
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.mlp.down.weight)

    assert check_gradients(with_model(healthy, zero)).status == "passed"


def test_a_gradient_that_is_not_finite(healthy: TextSubject) -> None:
    def poison(model: Any) -> None:
        model.blocks[0].mlp.up.weight.register_hook(lambda gradient: gradient * float("nan"))

    finding = check_gradients(with_model(healthy, poison))
    assert finding.status == "failed"
    assert "blocks.0.mlp.up.weight not finite" in finding.figure


# --- precision --------------------------------------------------------------------------------------------------------


class Amplified(nn.Module):
    """An MLP between two factors that cancel in float32; in between, a number is too large for float16."""

    def __init__(self, mlp: nn.Module, factor: float) -> None:
        super().__init__()
        self.mlp, self.factor = mlp, factor

    def forward(self, x: Tensor) -> Tensor:
        return (self.mlp(x) * self.factor) / self.factor


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_agrees_with_float32(from_recipe: FromRecipe, precision: str) -> None:
    assert check_precision(from_recipe(precision)).status == "passed"


def test_an_overflow_in_float16(from_recipe: FromRecipe) -> None:
    def amplify(model: Any) -> None:
        model.blocks[0].mlp = Amplified(model.blocks[0].mlp, 1e7)

    finding = check_precision(with_model(from_recipe("float16"), amplify))
    assert finding.status == "failed"
    assert "float32" in finding.remedy
    assert (
        check_precision(with_model(from_recipe("bfloat16"), amplify)).status == "passed"
    )  # it has the range of float32


# --- the text ---------------------------------------------------------------------------------------------------------


def test_a_loader_that_draws_from_a_global_generator(healthy: TextSubject) -> None:
    class Global(Loader):
        def _positions(self, first: int, last: int) -> list[int]:
            return torch.randint(len(self.tokens) - self.block_size, (last - first,)).tolist()

    assert check_loader(with_loader(healthy, Global)).status == "failed"


def test_a_loader_that_remembers_where_it_was(healthy: TextSubject) -> None:
    class Stateful(Loader):
        position = 0

        def _positions(self, first: int, last: int) -> list[int]:
            self.position += 1
            return [self.position + row for row in range(last - first)]

    assert check_loader(with_loader(healthy, Stateful)).status == "failed"


def test_a_loader_that_gives_every_rank_the_same_rows(healthy: TextSubject) -> None:
    class Same(Loader):
        def rows(self, step: int, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
            return super().rows(step, 0, (self.batch_rows if stop is None else stop) - start)

    finding = check_loader(with_loader(healthy, Same))
    assert finding.status == "failed"
    assert "two ranks" in finding.figure


@pytest.mark.parametrize("offset", [0, 2])
def test_targets_that_are_not_the_next_token(healthy: TextSubject, offset: int) -> None:
    class Shifted(Loader):
        def rows(self, step: int, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
            inputs, targets = super().rows(step, start, stop)
            return inputs, inputs if offset == 0 else targets.roll(-1, dims=1)

    assert check_targets(with_loader(healthy, Shifted)).status == "failed"


@pytest.mark.parametrize("split", ["train", "val"])
def test_ids_beyond_the_vocabulary(healthy: TextSubject, tmp_path: Path, split: str) -> None:
    whole = getattr(healthy, split)
    ids = whole.slice(0, len(whole))
    ids[-1] = healthy.tokenizer.vocab_size
    subject = replace(healthy, **{split: tokens(tmp_path, ids)})
    assert check_ids(subject).status == "failed"
    assert len(list(examine(subject))) == 1  # no model can be asked


def test_a_model_with_fewer_rows_than_the_tokenizer(healthy: TextSubject) -> None:
    model = replace(healthy.config.model, vocab_size=healthy.tokenizer.vocab_size - 1)  # type: ignore[type-var]
    assert check_ids(replace(healthy, config=replace(healthy.config, model=model))).status == "failed"


def test_validation_text_copied_from_the_training_text(healthy: TextSubject, tmp_path: Path) -> None:
    val = healthy.val.slice(0, len(healthy.val))
    copied = healthy.train.slice(1000, 1000 + len(val) // 10)
    finding = check_overlap(replace(healthy, val=tokens(tmp_path, np.concatenate([val, copied]))))
    assert finding.status == "failed"
    assert check_overlap(healthy).status == "passed"


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lr", "advice"), [(1e-1, "lower"), (1e-5, "raise")])
def test_a_learning_rate_a_hundred_times_off(from_recipe: FromRecipe, lr: float, advice: str) -> None:
    finding = check_update_ratio(from_recipe(optimizer__lr=lr))
    assert finding.status == "failed"
    assert finding.remedy.startswith(advice)


def test_a_model_too_narrow_for_its_batch(healthy: TextSubject) -> None:
    """One number is left of all that a position knows."""

    def narrow(model: Any) -> None:
        features = model.features
        model.features = lambda tokens, context=None: features(tokens, context=context)[..., :1].expand(
            -1, -1, model.config.n_embd
        )

    assert check_one_batch(with_model(healthy, narrow)).status == "failed"


def test_targets_at_random_every_step_cannot_be_learned(healthy: TextSubject) -> None:
    def random_targets(model: nn.Module, batch: Any) -> Loss:
        drawn = torch.randint_like(batch.targets, healthy.tokenizer.vocab_size)
        logits = model(batch.inputs).flatten(0, 1)
        return Loss(F.cross_entropy(logits, drawn.flatten(), reduction="sum"), drawn.numel())

    assert check_one_batch(replace(healthy, loss_function=random_targets)).status == "failed"


def test_a_table_of_pairs_is_not_asked_to_learn_a_batch(from_recipe: FromRecipe) -> None:
    assert check_one_batch(from_recipe(model__architecture="bigram")).status == "skipped"


def test_no_time_is_no_failure(healthy: TextSubject) -> None:
    finding = check_one_batch(healthy, seconds=0.0)
    assert finding.status == "skipped"
    assert "had time for 0 steps" in finding.reason
