"""The sequence-to-sequence stage: an encoder-decoder learns to write a target for a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from glassgpt.data.corpora import Corpus
from glassgpt.data.manifest import Manifest
from glassgpt.data.pair_dataset import PairDataset, build_pairs, reopen_pairs
from glassgpt.data.pair_loader import PairLoader, PairRows, collate_pairs
from glassgpt.data.pairs import check_lengths, split_pair
from glassgpt.evaluation.pairs import evaluate_pairs, write_targets
from glassgpt.models import AnyModel, EncoderDecoderModel, Kind, find_architecture
from glassgpt.runs.config import RunConfig
from glassgpt.runs.pretraining import check_architecture, find_data
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.losses import Loss, pair_loss, sum_token_losses
from glassgpt.training.stage import ARROW, Best, Sample


class Seq2Seq:
    """Targets, predicted token by token from their sources. Implements `glassgpt.training.stage.Stage`.

    A row of a batch is one pair. Raises UserError for a pair that is longer than the model's block_size.
    """

    best = Best("val/loss", "min")
    in_parts = False
    batches_ahead = True

    def __init__(self, config: RunConfig, model: EncoderDecoderModel, dataset: PairDataset, runtime: Runtime) -> None:
        self.model, self.dataset, self.tokenizer = model, dataset, dataset.tokenizer
        self._config, self._runtime = config, runtime
        block_size, seed = config.model.block_size, config.training.seed
        check_lengths(dataset.val, block_size)
        self._loader = PairLoader(dataset.train, dataset.ends, block_size, config.batch_rows, seed)
        self._loss = partial(pair_loss, sum_losses=runtime.compiled(sum_token_losses))

    def batches(self, step: int) -> Sequence[PairRows]:
        """This rank's rows, which are contiguous in the global batch, split into micro-batches."""
        own = self._runtime.ranks.rank_slice(self._config.batch_rows)
        return [self._loader.rows(step, *rows).to(self._runtime.device) for rows in self._config.passes(*own)]

    def loss(self, model: EncoderDecoderModel, batch: PairRows) -> Loss:
        """The cross-entropy of the targets, see `pair_loss`."""
        return self._loss(model, batch)

    def validate(self, whole: bool) -> Mapping[str, float]:
        """The figures of all pairs of the validation split, or of as many as `evaluation.tokens` would fill."""
        few = max(1, self._config.evaluation.tokens // self._config.model.block_size)
        max_pairs = None if whole else few
        return evaluate_pairs(
            self.model, self.dataset.val, self.tokenizer, self._runtime, max_pairs=max_pairs
        ).figures()

    def sample(self, step: int) -> Sample:
        """A source of the validation split, another one at each step, and what the model writes for it."""
        source, target = split_pair(self.dataset.val, step * 7919 % len(self.dataset.val))
        ends = self.dataset.ends
        batch = collate_pairs([(source, target)], ends, self._config.model.block_size).to(self._runtime.device)
        (written,) = write_targets(self.model, batch, ends, self.tokenizer, self._runtime)
        return Sample(self.tokenizer.decode(source[:-1]) + ARROW, written)

    def describe(self) -> str:
        """Tokenizer, rule and splits in one line."""
        train, val = len(self.dataset.train), len(self.dataset.val)
        return (
            f"{self.tokenizer.name} tokenizer, {self.tokenizer.vocab_size:,} ids: {train:,} pairs to train on"
            f" ({self.dataset.manifest.pairs}), {val:,} to validate on"
        )

    def save_data(self, folder: Path) -> None:
        """Writes data.json, the manifest of the pairs."""
        self.dataset.manifest.save(folder / "data.json")

    def state(self) -> Mapping[str, Tensor]:
        """Nothing: the batches are a pure function of (seed, step)."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Does nothing: there is no state."""


class Seq2SeqKind:
    """Builds the sequence-to-sequence stage of a run. Implements `glassgpt.runs.stages.StageKind`."""

    trains: Kind = "encoder-decoder"

    def build_model(self, config: RunConfig) -> AnyModel:
        """Builds the architecture of the config with random weights."""
        return find_architecture(config.architecture).model(config.model)

    def prepare(self, config: RunConfig, corpus: Corpus | None) -> tuple[dict[str, Any], Tokenizer, str]:
        """Makes the pairs, or finds them in the cache. Returns their manifest, the tokenizer and a note.

        Raises UserError for an architecture that reads no source, and for a pair longer than the model's block_size.
        """
        check_architecture(config, self.trains)
        dataset = build_pairs(config.data, config.tokenizer, corpus=corpus)
        for split in (dataset.train, dataset.val):
            check_lengths(split, config.model.block_size)
        return dataset.manifest.to_dict(), dataset.tokenizer, dataset.note

    def find_again(self, folder: Path, corpus: Corpus | None) -> dict[str, Any]:
        """Reads the manifest in a run's folder. Raises UserError if `corpus` is given and is another text."""
        return find_data(folder, corpus)

    def open_data(self, data: Mapping[str, Any], tokenizer: Tokenizer) -> PairDataset:
        """Opens the pairs that the manifest describes in this node's cache, or makes them again."""
        return reopen_pairs(Manifest.from_dict(data), tokenizer)

    def build(self, config: RunConfig, model: AnyModel, data: PairDataset, runtime: Runtime) -> Seq2Seq:
        """Builds the stage."""
        assert isinstance(model, EncoderDecoderModel)
        return Seq2Seq(config, model, data, runtime)
