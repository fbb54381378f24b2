"""The stage of masked language modelling: an encoder learns to find hidden tokens of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassgpt.data.corpora import Corpus
from glassgpt.data.dataset import Dataset
from glassgpt.data.masking import VALIDATION_SEED, Hider, MaskedLoader
from glassgpt.evaluation.masked import evaluate_masked
from glassgpt.models import AnyModel, EncoderModel, Kind, evaluating
from glassgpt.runs.config import RunConfig
from glassgpt.runs.pretraining import PretrainingKind, check_val
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.losses import Loss, MaskedBatch, hidden_logits, masked_token_loss, sum_token_losses
from glassgpt.training.stage import Best, Sample, Stage

HIDDEN = "▢"  # a hidden token, in a sample


class MaskedTraining:
    """Hidden tokens of windows of a text, found from those around them. Implements `glassgpt.training.stage.Stage`.

    Raises UserError for a tokenizer without a mask token, and an empty validation split.
    """

    best = Best("val/loss", "min")
    in_parts = True
    batches_ahead = True

    def __init__(self, config: RunConfig, model: EncoderModel, dataset: Dataset, runtime: Runtime) -> None:
        check_val(dataset)
        self.model, self.dataset, self.tokenizer = model, dataset, dataset.tokenizer
        self._config, self._runtime = config, runtime
        fraction = config.data.mask_fraction
        hider = Hider(self.tokenizer, fraction, config.training.seed)
        self._measured = Hider(self.tokenizer, fraction, VALIDATION_SEED)
        self._loader = MaskedLoader(dataset.train, hider, config.model.block_size, config.batch_rows)
        self._loss = partial(masked_token_loss, sum_losses=runtime.compiled(sum_token_losses))

    def batches(self, step: int) -> Sequence[MaskedBatch]:
        """This rank's rows, which are contiguous in the global batch, split into micro-batches."""
        own = self._runtime.ranks.rank_slice(self._config.batch_rows)
        device = self._runtime.device
        return [MaskedBatch.of(self._loader.rows(step, *rows), device) for rows in self._config.passes(*own)]

    def loss(self, model: EncoderModel, batch: MaskedBatch) -> Loss:
        """The cross-entropy of the hidden tokens, see `masked_token_loss`."""
        return self._loss(model, batch)

    def validate(self, whole: bool) -> Mapping[str, float]:
        """The loss and the accuracy on the whole validation split, or on about `evaluation.tokens` of it."""
        max_tokens = None if whole else self._config.evaluation.tokens
        return evaluate_masked(
            self.model, self.dataset.val, self._measured, self._runtime, max_tokens=max_tokens
        ).figures()

    def sample(self, step: int) -> Sample:
        """The beginning of the validation split with hidden tokens, and what the model finds in their place."""
        width = self._measured.width(self._config.model.block_size)
        true = self.dataset.val.slice(0, min(width, len(self.dataset.val)))[None]
        hidden = self._measured.hide(true, np.zeros(1, np.int64), training=False)
        batch = MaskedBatch.of(hidden, self._runtime.device)
        with evaluating(self.model), torch.no_grad(), self._runtime.autocast():
            logits = hidden_logits(self.model, batch)[0].float()[:, : self.tokenizer.vocab_size]
        places = self._measured.places_in_text(hidden)[0]
        written = true[0].copy()
        written[places] = logits.argmax(-1).cpu().numpy()
        starts, ends = [0, *(places + 1)], [*places, len(written)]
        asked = HIDDEN.join(
            self.tokenizer.decode(true[0, start:end].tolist()) for start, end in zip(starts, ends, strict=True)
        )
        return Sample(f"{asked}\n→\n", self.tokenizer.decode(written.tolist()))

    def describe(self) -> str:
        """Tokenizer, splits and what is hidden, in one line."""
        return (
            f"{self.tokenizer.name} tokenizer, {self.tokenizer.vocab_size:,} ids: {len(self.dataset.train):,} tokens to"
            f" train on, {len(self.dataset.val):,} to validate on; {self._config.data.mask_fraction:.0%} are hidden"
        )

    def save_data(self, folder: Path) -> None:
        """Writes data.json, the manifest of the shards."""
        self.dataset.manifest.save(folder / "data.json")

    def state(self) -> Mapping[str, Tensor]:
        """Nothing: the batches are a pure function of (seed, step)."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Does nothing: there is no state."""


class MaskedKind(PretrainingKind):
    """Builds the stage of masked language modelling. The data are those of pretraining, a text in shards."""

    trains: Kind = "encoder"

    def prepare(self, config: RunConfig, corpus: Corpus | None) -> tuple[dict[str, Any], Tokenizer, str]:
        """As for pretraining. Raises UserError also for a tokenizer without a mask token."""
        prepared = super().prepare(config, corpus)
        Hider(prepared[1], config.data.mask_fraction)
        return prepared

    def build(self, config: RunConfig, model: AnyModel, data: Dataset, runtime: Runtime) -> Stage:
        """Builds the stage."""
        assert isinstance(model, EncoderModel)
        return MaskedTraining(config, model, data, runtime)
