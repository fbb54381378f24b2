"""The stages that a run can have, by the name in its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from glassgpt.data.corpora import Corpus
from glassgpt.errors import UserError, unknown
from glassgpt.models import Model
from glassgpt.runs.config import RunConfig
from glassgpt.runs.pretraining import PretrainingKind
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.config_formats import NO_STAGE
from glassgpt.training.stage import Stage


class StageKind(Protocol):
    """How a run gets its stage. The first rank prepares the data and describes it; every rank opens it."""

    def build_model(self, config: RunConfig) -> Model:
        """The raw module with all that the stage adds to it, with fresh weights drawn from torch's generator."""

    def prepare(self, config: RunConfig, corpus: Corpus | None) -> tuple[dict[str, Any], Tokenizer, str]:
        """The data of a new run on the first rank: a JSON description, the tokenizer, and a note for the user.

        `corpus` stands in for the text that the config names.
        """

    def find_again(self, folder: Path, corpus: Corpus | None) -> dict[str, Any]:
        """The description of the data of the run in `folder`, as `prepare` gave it."""

    def open_data(self, data: Mapping[str, Any], tokenizer: Tokenizer) -> Any:
        """The data of such a description, on every rank; on each node once before the others of the node."""

    def build(self, config: RunConfig, model: Model, data: Any, runtime: Runtime) -> Stage:
        """The stage, on every rank."""


class ImportedKind(PretrainingKind):
    """Of a run whose weights come from elsewhere: it has a model and nothing to train it on."""

    def prepare(self, config: RunConfig, corpus: Corpus | None) -> tuple[dict[str, Any], Tokenizer, str]:
        """Raises UserError: such a run is not trained."""
        raise UserError(f"run.stage = {NO_STAGE} is for imported runs: name the stage to train")


STAGES: dict[str, StageKind] = {"pretrain": PretrainingKind(), NO_STAGE: ImportedKind()}


def find_stage(name: str) -> StageKind:
    """Raises UserError for a name that no stage has."""
    if name not in STAGES:
        raise unknown("run.stage", name, STAGES)
    return STAGES[name]
