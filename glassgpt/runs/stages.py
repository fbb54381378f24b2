"""The training stages by their name in `run.stage`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from glassgpt.data.corpora import Corpus
from glassgpt.errors import UserError, unknown
from glassgpt.models import AnyModel
from glassgpt.runs.config import RunConfig
from glassgpt.runs.masked import MaskedKind
from glassgpt.runs.pretraining import PretrainingKind
from glassgpt.runs.seq2seq import Seq2SeqKind
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.config_formats import NO_STAGE
from glassgpt.training.stage import Stage


class StageKind(Protocol):
    """Builds the stage of a run. The first rank prepares the data and describes it; every rank opens it."""

    def build_model(self, config: RunConfig) -> AnyModel:
        """Builds the raw module, with all that the stage adds to it, with random weights from torch's generator."""

    def prepare(self, config: RunConfig, corpus: Corpus | None) -> tuple[dict[str, Any], Tokenizer, str]:
        """Prepares the data of a new run, on the first rank. Returns a JSON description, the tokenizer and a note.

        `corpus` replaces the text that the config names. The note is for the user.
        """

    def find_again(self, folder: Path, corpus: Corpus | None) -> dict[str, Any]:
        """Returns the description of the data of the run in `folder`, as `prepare` returned it."""

    def open_data(self, data: Mapping[str, Any], tokenizer: Tokenizer) -> Any:
        """Opens the described data on every rank. On each node, the first rank goes before the others."""

    def build(self, config: RunConfig, model: AnyModel, data: Any, runtime: Runtime) -> Stage:
        """Builds the stage, on every rank. The weights of the model may follow later, from a file or the first rank."""


class ImportedKind(PretrainingKind):
    """The kind of an imported run, which has a model and no training data."""

    def prepare(self, config: RunConfig, corpus: Corpus | None) -> tuple[dict[str, Any], Tokenizer, str]:
        """Raises UserError: an imported run is not trained."""
        raise UserError(f"run.stage = {NO_STAGE} is for imported runs: name the stage to train")


STAGES: dict[str, StageKind] = {
    "pretrain": PretrainingKind(),
    "mlm": MaskedKind(),
    "seq2seq": Seq2SeqKind(),
    NO_STAGE: ImportedKind(),
}


def find_stage(name: str) -> StageKind:
    """The stage kind of that name. Raises UserError for an unknown name."""
    if name not in STAGES:
        raise unknown("run.stage", name, STAGES)
    return STAGES[name]
