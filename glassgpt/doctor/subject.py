"""What the doctor examines: the separate parts of a run, so that a test can check or replace each one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from glassgpt.data.dataset import Dataset
from glassgpt.data.loader import Loader
from glassgpt.data.shards import TokenArray
from glassgpt.models import Model, build_model
from glassgpt.models.attention import Attention
from glassgpt.models.context import Documents
from glassgpt.models.sizes import attention_window
from glassgpt.runs.config import RunConfig, document_eot_id
from glassgpt.runs.micro_batch import check_fits
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.parallel import ModelWithLoss
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.fit import OVERFLOW, Update, train_step
from glassgpt.training.losses import Batch, LossFunction, next_token_loss
from glassgpt.training.optimizers import build_optimizer


@dataclass(frozen=True)
class Subject:
    """A recipe with its data and device. `build` and `open_loader` return a new, identical object at every call."""

    config: RunConfig
    build: Callable[[], Model]
    open_loader: Callable[[], Loader]
    train: TokenArray
    val: TokenArray
    tokenizer: Tokenizer
    runtime: Runtime
    loss_function: LossFunction

    def batch(self, rows: int, positions: int) -> Batch:
        """The first `rows` rows of step 0, cut to their first `positions` positions, on the device."""
        loader = self.open_loader()
        inputs, targets = loader.rows(0, 0, min(rows, loader.batch_rows))
        device = self.runtime.device
        return Batch(inputs[:, :positions].to(device), targets[:, :positions].to(device))

    def without_dropout(self) -> Subject:
        """The same subject with dropout disabled, so that the model is deterministic."""

        def build() -> Model:
            model = self.build()
            for module in model.modules():
                if isinstance(module, Attention):  # it stores the rate as a number, for the fused kernel
                    module.dropout = 0.0
                elif isinstance(module, nn.Dropout):
                    module.p = 0.0
            return model

        return replace(self, build=build)


def build_subject(config: RunConfig, dataset: Dataset, runtime: Runtime) -> Subject:
    """The parts that training with this config would use. Raises UserError if the model cannot fit on the device."""

    def build() -> Model:
        torch.manual_seed(config.training.seed)
        return build_model(config.architecture, config.model).to(runtime.device)

    check_fits(lambda: build_model(config.architecture, config.model), runtime)
    tokenizer = dataset.tokenizer
    eot_id, window = document_eot_id(config, tokenizer), attention_window(config.model)
    return Subject(
        config,
        build,
        partial(Loader, dataset.train, config.model.block_size, config.batch_rows, config.training.seed),
        dataset.train,
        dataset.val,
        tokenizer,
        runtime,
        partial(
            next_token_loss,
            build_context=None if eot_id is None else partial(Documents, eot_id=eot_id, window=window),
            chunk=config.training.loss_chunk,
        ),
    )


class Trainer:
    """Trains a freshly initialised model on one batch repeatedly, with the training loop's step."""

    def __init__(self, subject: Subject, batch: Batch) -> None:
        self.subject, self.batch = subject, batch
        self.model = subject.build().train()
        self._parallel = ModelWithLoss(self.model, subject.loss_function)
        # Without weight decay, so that only the effect of the gradient is measured.
        self.optimizer = build_optimizer(self.model, replace(subject.config.optimizer, weight_decay=0.0))
        self.scaler = subject.runtime.build_scaler()
        self.steps = 0

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
