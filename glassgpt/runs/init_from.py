"""A run that begins with the weights of another: what it takes over, and what it may change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from glassgpt.config import to_dict
from glassgpt.data.dataset import tokenizer_sha256
from glassgpt.errors import UserError
from glassgpt.models import ModelConfig
from glassgpt.runs.config import RunConfig, Sections, config_sections
from glassgpt.runs.origin import Origin, sha256_of_file
from glassgpt.runs.run import Run, load
from glassgpt.tokenizers import TokenizerConfig
from glassgpt.training.checkpoint import MODEL

FINETUNE = "finetune"  # the recipe that is made for this
POSITIONS = "position_embedding.weight"  # (block_size, n_embd): the one parameter that a shorter context shortens


@dataclass(frozen=True)
class InitialRun:
    """The run to begin with: its best weights, its sizes and its tokenizer."""

    run: Run

    def sections(self, recipe: Sections) -> Sections:
        """A recipe with the model and the tokenizer of the run; of its own model only dropout is left."""
        found = inherit(recipe, self.run.config)
        return found | {"tokenizer": to_dict(self._tokenizer)}

    def check(self, config: RunConfig) -> None:
        """Raises UserError, naming the field, for a change that the weights do not allow."""
        before, after = self.run.config, config
        if after.tokenizer != self._tokenizer:
            raise UserError(f"the tokenizer cannot be changed: the weights of {self.run.folder} know only its own ids")
        if after.architecture != before.architecture:
            raise self._refusal("architecture", after.architecture, before.architecture)
        for field in to_dict(after.model):
            value, had = getattr(after.model, field), getattr(before.model, field)
            if field == "block_size" and value > had:
                raise self._refusal(field, value, had)
            if field not in ("block_size", "dropout") and value != had:
                raise self._refusal(field, value, had)

    def weights(self, model: ModelConfig) -> dict[str, Tensor]:
        """The state dict for a model of that config."""
        state = self.run.model.state_dict()
        if POSITIONS in state:
            state[POSITIONS] = state[POSITIONS][: model.block_size]
        return state

    def origin(self) -> Origin:
        """What the new run remembers of it."""
        weights = self.run.checkpoint.path / MODEL
        return Origin(
            source=str(self.run.folder),
            revision=f"step {self.run.step}",
            files={MODEL: sha256_of_file(weights)},
            tokenizer_sha256=tokenizer_sha256(self.run.tokenizer),
        )

    @property
    def _tokenizer(self) -> TokenizerConfig:
        return TokenizerConfig(str(self.run.folder / "tokenizer.json"))

    def _refusal(self, field: str, value: object, had: object) -> UserError:
        return UserError(
            f"model.{field} = {value} does not fit the weights of {self.run.folder}, which have {had}: with --init-from"
            " only dropout may change, and block_size become smaller"
        )


def open_initial_run(init_from: str | Path) -> InitialRun:
    """The run by its name under runs/ or its path. Raises UserError as `load` does."""
    return InitialRun(load(init_from, device="cpu"))


def inherit(recipe: Sections, config: RunConfig) -> Sections:
    """A recipe whose model and tokenizer are those of `config`, whatever it says itself; dropout stays its own."""
    taken = {name: config_sections(config)[name] for name in ("model", "tokenizer")}
    dropout = recipe.get("model", {}).get("dropout", config.model.dropout)
    return recipe | taken | {"model": taken["model"] | {"dropout": dropout}}
