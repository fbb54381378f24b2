"""What the doctor examines: the separate parts of a run, so that a test can check or replace each one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import nn

from glassgpt.data.dataset import Dataset
from glassgpt.data.loader import Loader
from glassgpt.data.masking import Hider, MaskedLoader
from glassgpt.data.pair_dataset import PairDataset
from glassgpt.data.pair_loader import PairLoader, PairRows
from glassgpt.data.shards import TokenArray
from glassgpt.doctor.curve_checks import Counted
from glassgpt.errors import UserError
from glassgpt.evaluation.counting import counting_losses, frequency_loss, unigram_loss
from glassgpt.models import find_architecture
from glassgpt.models.attention import Attention
from glassgpt.models.context import Documents
from glassgpt.models.sizes import attention_window
from glassgpt.runs.config import RunConfig, document_eot_id
from glassgpt.runs.micro_batch import check_fits
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.parallel import ModelWithLoss
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.fit import OVERFLOW, Update, train_step
from glassgpt.training.losses import (
    Batch,
    LossFunction,
    MaskedBatch,
    MicroBatch,
    masked_token_loss,
    next_token_loss,
    pair_loss,
)
from glassgpt.training.optimizers import build_optimizer

MOST_TOKENS = 512  # that an encoder reads in a batch


@dataclass(frozen=True)
class Subject(ABC):
    """A recipe with its data and device. `build` and `open_loader` return a new, identical object at every call.

    There is a kind of subject for each stage, since what a batch is depends on the stage.
    """

    config: RunConfig
    build: Callable[[], Any]
    open_loader: Callable[[], Any]
    train: TokenArray  # all ids to train on; those of pairs stand one after another
    val: TokenArray
    tokenizer: Tokenizer
    runtime: Runtime
    loss_function: LossFunction

    @abstractmethod
    def batch(self, rows: int, positions: int) -> MicroBatch:
        """The first rows of step 0 on the device, with about `rows` × `positions` targets."""

    @abstractmethod
    def count(self) -> Counted:
        """What counting alone reaches on the validation data. Raises UserError for ids outside the vocabulary."""

    def without_dropout(self) -> Self:
        """The same subject with dropout disabled, so that the model is deterministic."""

        def build() -> Any:
            model = self.build()
            for module in model.modules():
                if isinstance(module, Attention):  # it stores the rate as a number, for the fused kernel
                    module.dropout = 0.0
                elif isinstance(module, nn.Dropout):
                    module.p = 0.0
            return model

        return replace(self, build=build)


class TextSubject(Subject):
    """A decoder that predicts the next token of a text. `open_loader` opens a `Loader`."""

    def batch(self, rows: int, positions: int) -> Batch:
        """The first `rows` rows of step 0, cut to their first `positions` positions, on the device."""
        loader = self.open_loader()
        inputs, targets = loader.rows(0, 0, min(rows, loader.batch_rows))
        device = self.runtime.device
        return Batch(inputs[:, :positions].to(device), targets[:, :positions].to(device))

    def count(self) -> Counted:
        """What counting tokens reaches, and rows of several."""
        counts = counting_losses(self.train, self.val, self.tokenizer.vocab_size)
        return Counted(counts.unigram, f"counting rows of up to {counts.order} tokens reaches {counts.ngram:.3f}")


class MaskedSubject(Subject):
    """An encoder that finds hidden tokens of a text. `open_loader` opens a `MaskedLoader`."""

    def batch(self, rows: int, positions: int) -> MaskedBatch:
        """Whole rows of step 0 with about `rows` × `positions` hidden tokens, but no more than MOST_TOKENS tokens."""
        loader = self.open_loader()
        n_hidden, n_tokens = loader.rows(0, 0, 1).places.size, self.config.model.block_size
        wanted = min(-(-rows * positions // n_hidden), MOST_TOKENS // n_tokens)
        hidden = loader.rows(0, 0, min(max(1, wanted), loader.batch_rows))
        return MaskedBatch.of(hidden, self.runtime.device)

    def count(self) -> Counted:
        """What the frequencies of the tokens reach: any token of the text may be hidden."""
        return Counted(unigram_loss(self.train, self.val, self.tokenizer.vocab_size))


@dataclass(frozen=True)
class PairSubject(Subject):
    """An encoder-decoder that writes a target for a source. `open_loader` opens a `PairLoader`."""

    pairs: PairDataset

    def batch(self, rows: int, positions: int) -> PairRows:
        """The first pairs of step 0, as many as it takes for `rows` × `positions` targets."""
        loader = self.open_loader()
        found = loader.rows(0).mask.sum(1).cumsum(0)
        n_pairs = min(int((found < rows * positions).sum()) + 1, loader.batch_rows)
        return loader.rows(0, 0, n_pairs).to(self.runtime.device)

    def count(self) -> Counted:
        """What the frequencies of the targets' tokens reach."""
        train, val = self.pairs.train.count_targets(), self.pairs.val.count_targets()
        return Counted(frequency_loss(train, val))


def check_stage(stage: str) -> None:
    """Raises UserError for a stage that has no checks."""
    if stage not in SUBJECTS:
        raise UserError(f"doctor examines the stages {', '.join(SUBJECTS)}, not '{stage}'")


def build_subject(config: RunConfig, dataset: Any, runtime: Runtime) -> Subject:
    """The parts that training with this config would use, with the data that its stage has opened.

    Raises UserError if the model cannot fit on the device, and for a stage that has no checks.
    """
    check_stage(config.run.stage)
    architecture = find_architecture(config.architecture)

    def build() -> nn.Module:
        torch.manual_seed(config.training.seed)
        return architecture.model(config.model).to(runtime.device)

    check_fits(lambda: architecture.model(config.model), runtime)
    return SUBJECTS[config.run.stage](config, build, dataset, runtime)


def _text(config: RunConfig, build: Callable[[], nn.Module], dataset: Dataset, runtime: Runtime) -> TextSubject:
    eot_id, window = document_eot_id(config, dataset.tokenizer), attention_window(config.model)
    return TextSubject(
        config,
        build,
        partial(Loader, dataset.train, config.model.block_size, config.batch_rows, config.training.seed),
        dataset.train,
        dataset.val,
        dataset.tokenizer,
        runtime,
        partial(
            next_token_loss,
            build_context=None if eot_id is None else partial(Documents, eot_id=eot_id, window=window),
            chunk=config.training.loss_chunk,
        ),
    )


def _masked(config: RunConfig, build: Callable[[], nn.Module], dataset: Dataset, runtime: Runtime) -> MaskedSubject:
    hider = Hider(dataset.tokenizer, config.data.mask_fraction, config.training.seed)
    open_loader = partial(MaskedLoader, dataset.train, hider, config.model.block_size, config.batch_rows)
    splits = dataset.train, dataset.val
    return MaskedSubject(config, build, open_loader, *splits, dataset.tokenizer, runtime, masked_token_loss)


def _pairs(config: RunConfig, build: Callable[[], nn.Module], dataset: PairDataset, runtime: Runtime) -> PairSubject:
    sizes = config.model.block_size, config.batch_rows, config.training.seed
    open_loader = partial(PairLoader, dataset.train, dataset.ends, *sizes)
    splits = dataset.train.tokens, dataset.val.tokens
    return PairSubject(config, build, open_loader, *splits, dataset.tokenizer, runtime, pair_loss, dataset)


SUBJECTS: Mapping[str, Callable[[RunConfig, Callable[[], nn.Module], Any, Runtime], Subject]] = {
    "pretrain": _text,
    "mlm": _masked,
    "seq2seq": _pairs,
}


class Trainer:
    """Trains a freshly initialised model on one batch repeatedly, with the training loop's step."""

    def __init__(self, subject: Subject, batch: MicroBatch) -> None:
        self.subject, self.batch = subject, batch
        self.model = subject.build().train()
        self._parallel = ModelWithLoss(self.model, subject.loss_function)
        # Without weight decay, so that only the effect of the gradient is measured.
        self.optimizer = build_optimizer(self.model, replace(subject.config.optimizer, weight_decay=0.0))
        self.scaler = subject.runtime.build_scaler()
        self.steps = 0

    def count_targets(self) -> int:
        """The number of targets of the batch, as its loss counts them."""
        with torch.no_grad(), self.subject.runtime.autocast():
            return int(self.subject.loss_function(self.model, self.batch).weight)

    def step(self, lr: float) -> Update:
        """One step at this learning rate: the loss before it, the gradient norm, and the reason if it was skipped.

        Steps that overflow while float16 adjusts its loss scale are repeated and not counted.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        training = self.subject.config.training
        while True:
            update = train_step(
                self._parallel, self.optimizer, self.scaler, [self.batch], self.subject.runtime,
                grad_clip=training.grad_clip, seed=training.seed, step=self.steps, expected_weight=self.batch.n_tokens,
            )  # fmt: skip
            if update.skipped != OVERFLOW:
                self.steps += 1
                return update
