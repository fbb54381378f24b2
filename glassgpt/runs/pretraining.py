"""The pretraining stage: next-token prediction on the shards of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassgpt.data.corpora import Corpus
from glassgpt.data.dataset import Dataset, sha256_of
from glassgpt.data.dataset_cache import build_dataset, reopen_dataset
from glassgpt.data.loader import Loader
from glassgpt.data.manifest import Manifest, load_manifest
from glassgpt.errors import UserError, option
from glassgpt.evaluation.validation import bytes_per_token, evaluate
from glassgpt.generation.engine import generate
from glassgpt.generation.sampling import SamplingConfig
from glassgpt.generation.text import start_of_text, text_by_token
from glassgpt.inspection.surprise import token_losses
from glassgpt.models import AnyModel, Kind, Model, find_architecture
from glassgpt.models.block_masks import MIN_HEAD_SIZE, BlockMasks
from glassgpt.models.context import Documents
from glassgpt.models.sizes import attention_window
from glassgpt.runs.config import TRAINS, RunConfig, document_eot_id
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.base import begin_with_bos
from glassgpt.training.balance import BalancedLoss
from glassgpt.training.losses import Batch, BuildContext, Loss, LossFunction, next_token_loss, sum_token_losses
from glassgpt.training.stage import Best, Sample, Stage

SAMPLING = SamplingConfig(temperature=0.8, top_k=200)


class Pretraining:
    """Next-token prediction on the shards of a dataset. Implements `glassgpt.training.stage.Stage`.

    Raises UserError for a validation split of fewer than two tokens.
    """

    best = Best("val/loss", "min")
    batches_ahead = True

    def __init__(self, config: RunConfig, model: Model, dataset: Dataset, runtime: Runtime) -> None:
        check_val(dataset)
        self.model, self.dataset, self.tokenizer = model, dataset, dataset.tokenizer
        self.in_parts = config.training.loss_chunk is not None
        self._config, self._runtime = config, runtime
        self._loader = Loader(dataset.train, config.model.block_size, config.batch_rows, config.training.seed)
        self._token_bytes = bytes_per_token(self.tokenizer)
        self._eot_id = document_eot_id(config, self.tokenizer)
        self._loss: LossFunction = partial(
            next_token_loss,
            build_context=self._choose_context(),
            chunk=config.training.loss_chunk,
            sum_losses=runtime.compiled(sum_token_losses),
        )
        if config.training.expert_balance:
            self._loss = BalancedLoss(self._loss, model, config.training.expert_balance)

    def _choose_context(self) -> BuildContext | None:
        """What a pass needs beside its tokens: masks that keep documents apart, or make bands fast; None for neither.

        FlexAttention knows no dropout.
        """
        sizes, eot_id = self._config.model, self._eot_id
        window = attention_window(sizes)
        fits = sizes.n_embd // sizes.n_head >= MIN_HEAD_SIZE and not sizes.dropout
        if self._runtime.block_masks and fits and (eot_id is not None or window is not None):
            return partial(BlockMasks, eot_id=eot_id, window=window)
        return None if eot_id is None else partial(Documents, eot_id=eot_id, window=window)

    def batches(self, step: int) -> Sequence[Batch]:
        """This rank's rows, which are contiguous in the global batch, split into micro-batches."""
        own = self._runtime.ranks.rank_slice(self._config.batch_rows)
        return [self._batch(step, *rows) for rows in self._config.passes(*own)]

    def _batch(self, step: int, start: int, stop: int) -> Batch:
        inputs, targets = self._loader.rows(step, start, stop)
        largest = int(max(inputs.max(), targets.max()))
        if largest >= self.tokenizer.vocab_size:
            raise UserError(
                f"token id {largest} in the training data is outside the tokenizer's vocabulary of"
                f" {self.tokenizer.vocab_size}: the shards in {self.dataset.folder} are damaged or of another"
                " tokenizer; see glassgpt data verify"
            )
        device = self._runtime.device
        if device.type == "cuda":  # only from pinned memory does a copy to a GPU leave the host free
            inputs, targets = inputs.pin_memory(), targets.pin_memory()
        return Batch(inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True))

    def loss(self, model: Model, batch: Batch) -> Loss:
        """The cross-entropy of the next token, see `next_token_loss`, and the balance of experts as a penalty."""
        return self._loss(model, batch)

    def validate(self, whole: bool) -> Mapping[str, float]:
        """The loss on the whole validation split, or on about `evaluation.tokens` of it."""
        return evaluate(
            self.model,
            self.dataset.val,
            self._token_bytes,
            self._runtime,
            max_tokens=None if whole else self._config.evaluation.tokens,
            eot_id=self._eot_id,
        ).figures()

    def sample(self, step: int) -> Sample:
        """Generates text from an empty prompt, with a random generator of its own.

        Raises UserError if the weights have diverged.
        """
        generator = torch.Generator().manual_seed(self._config.training.seed + step)
        prompt = start_of_text(self.tokenizer)
        seen = begin_with_bos(self.tokenizer, prompt)
        ids = list(
            generate(
                self.model, seen, SAMPLING, max_new_tokens=self._config.evaluation.sample_tokens,
                vocab_size=self.tokenizer.vocab_size, generator=generator,
            )
        )  # fmt: skip
        losses = token_losses(self.model, [*seen, *ids], top=1).losses[len(seen) - 1 :].tolist()
        pieces = text_by_token(self.tokenizer, ids, losses)
        return Sample(self.tokenizer.decode(prompt), "".join(text for text, _ in pieces), pieces)

    def describe(self) -> str:
        """Tokenizer and splits in one line."""
        n_val, eval_tokens = len(self.dataset.val), self._config.evaluation.tokens
        part = "" if n_val <= eval_tokens else f", {eval_tokens:,} of them while training"
        return (
            f"{self.tokenizer.name} tokenizer, {self.tokenizer.vocab_size:,} ids: {len(self.dataset.train):,} tokens to"
            f" train on, {n_val:,} to validate on{part}"
        )

    def save_data(self, folder: Path) -> None:
        """Writes data.json, the manifest of the shards."""
        self.dataset.manifest.save(folder / "data.json")

    def state(self) -> Mapping[str, Tensor]:
        """Nothing: the batches are a pure function of (seed, step)."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Does nothing: there is no state."""


class PretrainingKind:
    """Builds the pretraining stage of a run. Implements `glassgpt.runs.stages.StageKind`."""

    trains: Kind = "decoder"

    def build_model(self, config: RunConfig) -> AnyModel:
        """Builds the architecture of the config with random weights."""
        return find_architecture(config.architecture).model(config.model)

    def prepare(self, config: RunConfig, corpus: Corpus | None) -> tuple[dict[str, Any], Tokenizer, str]:
        """Builds the shards, or finds them in the cache. Returns their manifest, the tokenizer and a note.

        Raises UserError for an architecture of another kind than the stage trains.
        """
        check_architecture(config, self.trains)
        dataset = build_dataset(config.data, config.tokenizer, corpus=corpus)
        return dataset.manifest.to_dict(), dataset.tokenizer, dataset.note

    def find_again(self, folder: Path, corpus: Corpus | None) -> dict[str, Any]:
        """Reads the manifest in a run's folder. Raises UserError if `corpus` is given and is another text."""
        return find_data(folder, corpus)

    def open_data(self, data: Mapping[str, Any], tokenizer: Tokenizer) -> Dataset:
        """Opens the shards that the manifest describes in this node's cache, or builds them again."""
        return reopen_dataset(Manifest.from_dict(data), tokenizer)

    def build(self, config: RunConfig, model: AnyModel, data: Dataset, runtime: Runtime) -> Stage:
        """Builds the stage."""
        assert isinstance(model, Model)
        return Pretraining(config, model, data, runtime)


def check_val(dataset: Dataset) -> None:
    """Raises UserError for a validation split of fewer than two tokens."""
    if len(dataset.val) < 2:
        raise UserError(
            f"the validation split has {len(dataset.val)} token(s): give a longer text, or a larger data.val_fraction"
        )


def check_architecture(config: RunConfig, kind: Kind) -> None:
    """Raises UserError if a stage that trains models of this kind is given another.

    A model that sees the token which it would have to predict learns nothing.
    """
    found = find_architecture(config.architecture).kind
    if found != kind:
        other = next(stage for stage, trained in TRAINS.items() if trained == found)
        raise UserError(
            f"the stage '{config.run.stage}' trains a model of the kind '{kind}', and '{config.architecture}' is of the"
            f" kind '{found}': train it with {option(**{'run.stage': other})}"
        )


def find_data(folder: Path, corpus: Corpus | None) -> dict[str, Any]:
    """The manifest in a run's folder. Raises UserError if `corpus` is given and is another text."""
    manifest = load_manifest(folder / "data.json")
    if corpus is not None and sha256_of(corpus.text) != manifest.text_sha256:
        raise UserError(f"the text given is not the one that {folder} is trained on: leave it out, or start a new run")
    return manifest.to_dict()
