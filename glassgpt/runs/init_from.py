"""Starts a run from the weights of another: which settings it inherits, and which it may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from glassgpt.config import to_dict
from glassgpt.data.dataset import tokenizer_sha256
from glassgpt.errors import UserError, option
from glassgpt.models import Kind, ModelConfig, find_architecture
from glassgpt.runs.config import RunConfig, Sections, config_sections
from glassgpt.runs.origin import Origin, sha256_of_file
from glassgpt.runs.run import Run, open_run
from glassgpt.tokenizers import TokenizerConfig
from glassgpt.training.checkpoint import MODEL, files_of, open_weights

FINETUNE = "finetune"  # the recipe for this, for decoders
EXAMPLES: dict[Kind, str] = {"encoder": "bert-tiny", "encoder-decoder": "reverse-tiny"}  # recipes of the others
POSITIONS = "position_embedding.weight"  # (block_size, n_embd): the one parameter that depends on block_size


@dataclass(frozen=True)
class InitialRun:
    """The run that provides the initial weights (its best), the model sizes and the tokenizer."""

    run: Run

    def sections(self, recipe: Sections) -> Sections:
        """The recipe with the model and tokenizer of this run; of its own [model] it keeps only dropout."""
        found = inherit(recipe, self.run.config)
        return found | {"tokenizer": to_dict(self._tokenizer)}

    def check(self, config: RunConfig) -> None:
        """Raises UserError, naming the field, for a change that the weights do not allow."""
        before, after = self.run.config, config
        if after.tokenizer != self._tokenizer:
            raise UserError(f"the tokenizer cannot be changed: the weights of {self.run.folder} belong to its ids")
        if after.architecture != before.architecture:
            raise self._refusal("architecture", after.architecture, before.architecture)
        for field in to_dict(after.model):
            value, had = getattr(after.model, field), getattr(before.model, field)
            if field == "block_size" and value > had and self._positions:
                raise self._refusal(field, value, had)
            if field not in ("block_size", "dropout", "ngram_dropout") and value != had:
                raise self._refusal(field, value, had)

    def weights(self, model: ModelConfig) -> Callable[[str], Tensor]:
        """Reads the weights for a model of that config by name, with position embeddings cut to its `block_size`."""
        reader = open_weights(self.run.checkpoint)

        def read(name: str) -> Tensor:
            tensor = reader.read(name)
            return tensor[: model.block_size] if name == POSITIONS else tensor

        return read

    def origin(self) -> Origin:
        """The origin to record in the new run."""
        checkpoint = self.run.checkpoint
        return Origin(
            source=str(self.run.folder),
            revision=f"step {self.run.step}",
            files={file: sha256_of_file(checkpoint.path / file) for file in files_of(checkpoint, MODEL)},
            tokenizer_sha256=tokenizer_sha256(self.run.tokenizer),
        )

    @property
    def kind(self) -> Kind:
        """The kind of its model."""
        return find_architecture(self.run.config.architecture).kind

    @property
    def _positions(self) -> bool:
        """Whether the weights have an embedding of positions: a longer context would have positions without one."""
        return POSITIONS in open_weights(self.run.checkpoint).shapes

    @property
    def _tokenizer(self) -> TokenizerConfig:
        return TokenizerConfig(str(self.run.folder / "tokenizer.json"))

    def _refusal(self, field: str, value: object, had: object) -> UserError:
        changes = "only dropout may change, and block_size may become smaller"
        return UserError(
            f"model.{field} = {value} does not fit the weights of {self.run.folder}, which have {had}: with"
            f" {option(init_from=None)} {changes if self._positions else 'only dropout and block_size may change'}"
        )


def open_initial_run(init_from: str | Path) -> InitialRun:
    """Opens a run by its name under runs/ or its path. Raises UserError as `load` does.

    It also raises it if the stage of that run changed the architecture. The weights are not read yet.
    """
    run = open_run(init_from, device="cpu")
    run.check_plain_model()
    return InitialRun(run)


def inherit(recipe: Sections, config: RunConfig) -> Sections:
    """The recipe with the model and tokenizer of `config` instead of its own; it keeps its own dropout."""
    taken = {name: config_sections(config)[name] for name in ("model", "tokenizer")}
    dropout = recipe.get("model", {}).get("dropout", config.model.dropout)
    return recipe | taken | {"model": taken["model"] | {"dropout": dropout}}
