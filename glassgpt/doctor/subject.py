"""What the doctor examines: each part that a run is made of, so that one can be looked at, or swapped, alone."""

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
from glassgpt.runs.config import RunConfig, document_eot_id
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.parallel import ModelWithLoss
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.fit import OVERFLOW, Update, train_step
from glassgpt.training.losses import Batch, LossFunction, next_token_loss
from glassgpt.training.optimizers import build_optimizer


@dataclass(frozen=True)
class Subject:
    """A recipe with its text and device. `build` draws fresh weights, the same at every call; so does `open_loader`."""

    config: RunConfig
    build: Callable[[], Model]
    open_loader: Callable[[], Loader]
    train: TokenArray
    val: TokenArray
    tokenizer: Tokenizer
    runtime: Runtime
    loss_function: LossFunction

    def batch(self, rows: int, positions: int) -> Batch:
        """The first rows of the first step, cut to their first positions, on the device."""
        loader = self.open_loader()
        inputs, targets = loader.rows(0, 0, min(rows, loader.batch_rows))
        device = self.runtime.device
        return Batch(inputs[:, :positions].to(device), targets[:, :positions].to(device))

    def without_dropout(self) -> Subject:
        """The same with a model whose answer to a batch is always the same."""

        def build() -> Model:
            model = self.build()
            for module in model.modules():
                if isinstance(getattr(module, "dropout", None), float):  # attention holds it as a number
                    module.dropout = 0.0  # type: ignore[assignment]
                elif isinstance(module, nn.Dropout):
                    module.p = 0.0
            return model

        return replace(self, build=build)


def build_subject(config: RunConfig, dataset: Dataset, runtime: Runtime) -> Subject:
    """The parts that training with this config would be made of."""

    def build() -> Model:
        torch.manual_seed(config.training.seed)
        return build_model(config.architecture, config.model).to(runtime.device)

    tokenizer = dataset.tokenizer
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
            eot_id=document_eot_id(config, tokenizer),
            chunk=config.training.loss_chunk,
        ),
    )


class Trainer:
    """A fresh model that takes steps on one batch again and again, as the loop of a run would."""

    def __init__(self, subject: Subject, batch: Batch) -> None:
        self.subject, self.batch = subject, batch
        self.model = subject.build().train()
        self._parallel = ModelWithLoss(self.model, subject.loss_function)
        # Decay would pull at the weights beside the gradient, whose effect alone is of interest here.
        self.optimizer = build_optimizer(self.model, replace(subject.config.optimizer, weight_decay=0.0))
        self.scaler = subject.runtime.build_scaler()
        self.steps = 0

    def step(self, lr: float) -> Update:
        """One step at this rate: the loss before it, the norm of the gradient, and why it was skipped, if it was.

        Overflows by which float16 finds its loss scale are no steps.
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
