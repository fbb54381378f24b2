"""What the first rank of a job decides for all: which run, with which configuration and data, and from which step.

The decision is one plain value. It is sent to the other ranks once, as JSON, and every rank builds its session from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glassgpt.data.corpora import Corpus
from glassgpt.data.dataset import tokenizer_of
from glassgpt.errors import UserError
from glassgpt.runs.config import (
    RunConfig,
    Sections,
    apply_overrides,
    check_ranks,
    check_resumable,
    config_sections,
    load_config,
    load_recipe,
    parse_run_config,
    quiet,
    with_dtype,
    with_settings,
    with_vocab_size,
)
from glassgpt.runs.folder import check_free, check_trained, find_last, find_run, has_ended
from glassgpt.runs.init_from import FINETUNE, InitialRun, inherit, open_initial_run
from glassgpt.runs.micro_batch import with_micro_batch
from glassgpt.runs.stages import find_stage
from glassgpt.runtime.device import Runtime, build_runtime
from glassgpt.runtime.distributed import ALONE, Ranks
from glassgpt.tokenizers import TokenizerConfig, load_tokenizer
from glassgpt.training.checkpoint import Checkpoint
from glassgpt.training.metrics import read_lines
from glassgpt.training.trackers import check_installed

# What --overfit-batch changes in a recipe: one batch, nothing that holds the model back from learning it by heart.
OVERFIT: Sections = {
    "model": {"dropout": 0.0},
    "optimizer": {"weight_decay": 0.0},
    "schedule": {"name": "constant", "warmup_steps": 10},
    "training": {"overfit_batch": True, "max_steps": 1000},
    "evaluation": {"every": 0, "sample_every": 0},
    "checkpoint": {"every": 0, "snapshots": 0},
}

Note = Callable[[str], None]


@dataclass(frozen=True)
class Changes:
    """What a user changes in a recipe, in the order in which it is applied."""

    overrides: Sequence[str] = ()  # "section.field=value"
    values: Mapping[str, Any] = field(default_factory=dict)  # by "section.field"
    max_steps: int | None = None
    overfit_batch: bool = False

    def apply(self, sections: Sections, n_ids: int | None = None, note: Note = quiet) -> RunConfig:
        """The checked config of `sections` with the changes made; `note` as in `load_recipe`.

        Once the tokenizer is known, `n_ids` is how many ids it has: that decides `model.vocab_size`.
        """
        if self.overfit_batch:
            sections = {
                name: sections.get(name, {}) | OVERFIT.get(name, {}) for name in sections.keys() | OVERFIT.keys()
            }
        # What the overrides have to say they say once, while the tokenizer is not known.
        early = note if n_ids is None else quiet
        sections = with_settings(apply_overrides(sections, self.overrides, early), self.values)
        if n_ids is not None:
            sections, line = with_vocab_size(sections, n_ids)
            if line:
                note(line)
        config = parse_run_config(sections)
        own = tokenizer_of(config.data.source)
        if own and not config.run.init_from and not self._names_tokenizer():
            config = dataclasses.replace(config, tokenizer=TokenizerConfig(str(own)))
        if self.max_steps is None:
            return config
        return dataclasses.replace(config, training=dataclasses.replace(config.training, max_steps=self.max_steps))

    def _names_tokenizer(self) -> bool:
        """Whether the user, not only the recipe, says which tokenizer: then that of a prepared folder must be it."""
        return any(path.startswith("tokenizer.") for path in (*self.overrides, *self.values))


@dataclass(frozen=True)
class Decision:
    """All that a rank needs to know to build its session. Plain values only: it travels as JSON."""

    folder: str
    config: Sections  # every field of every section
    data: dict[str, Any]  # as the kind of stage describes its data
    tokenizer: dict[str, Any]
    origin: dict[str, Any] | None = None  # whose weights a new run begins with, if they are not random
    checkpoint: dict[str, Any] | None = None  # the state of the one to resume from; None: a new run
    recorded: int = 0  # the last step in metrics.jsonl: trackers may have the figures up to there
    finished: bool = False  # there is nothing left to train

    def to_json(self) -> dict[str, Any]:
        """The fields, for a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Decision:
        """The inverse of `to_json`."""
        return cls(**fields)

    def resumed_from(self) -> Checkpoint:
        """The checkpoint to resume from, of a run that is resumed. Its files are on the first rank's disk."""
        assert self.checkpoint is not None
        return Checkpoint(Path(self.folder) / "checkpoints" / f"step-{self.checkpoint['step']:08d}", self.checkpoint)


def decide_new_run(
    folder: Path,
    recipe: str,
    changes: Changes,
    *,
    corpus: Corpus | None = None,
    overwrite: bool = False,
    ranks: Ranks = ALONE,
    note: Note = quiet,
) -> Decision:
    """A new run. Everything is checked and prepared before the folder, or an old run's, is touched."""
    check_free(folder, overwrite)
    sections, initial = load_recipe(recipe, note), _open_initial_run(recipe, changes)
    if initial is not None:
        sections = initial.sections(sections)
    config = changes.apply(sections, note=note)
    if initial is not None:
        initial.check(config)
    elif config.run.init_from:
        raise UserError("run.init_from says what --init-from RUN did: give that")
    check_ranks(config, ranks)
    runtime = find_runtime(config, ranks, note)
    data, tokenizer, remark = find_stage(config.run.stage).prepare(config, corpus)
    note(remark)
    config = with_dtype(changes.apply(sections, tokenizer.vocab_size, note), runtime.precision)
    if config.model.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size = {config.model.vocab_size} is too small: the tokenizer has"
            f" {tokenizer.vocab_size} ids; leave it out, and it is the tokenizer's"
        )
    config = with_micro_batch(config, runtime, note)
    origin = None if initial is None else dataclasses.asdict(initial.origin())
    return Decision(str(folder), config_sections(config), data, tokenizer.to_dict(), origin)


def decide_resumed_run(
    folder: Path,
    recipe: str | None,
    changes: Changes,
    *,
    corpus: Corpus | None = None,
    ranks: Ranks = ALONE,
    note: Note = quiet,
) -> Decision:
    """The run in `folder`, from its last checkpoint that can be resumed from."""
    folder = find_run(folder)
    config = _config_of_resumed(folder, recipe, changes, ranks, note)
    find_runtime(config, ranks, note)
    last = find_last(folder, config.training.max_steps)
    finished = has_ended(folder) and (last.step == config.training.max_steps or config.training.overfit_batch)
    data = {} if finished else find_stage(config.run.stage).find_again(folder, corpus)
    lines = read_lines(folder / "metrics.jsonl")
    return Decision(
        str(folder),
        config_sections(config),
        data,
        load_tokenizer(folder / "tokenizer.json").to_dict(),
        checkpoint=last.state,
        recorded=int(lines[-1]["step"]) if lines else 0,
        finished=finished,
    )


def _config_of_resumed(folder: Path, recipe: str | None, changes: Changes, ranks: Ranks, note: Note) -> RunConfig:
    """The run's own config with the changes made, which must be such that it stays the same run."""
    check_trained(folder)
    stored = load_config(folder / "config.toml")
    sections = config_sections(stored) if recipe is None else load_recipe(recipe, note)
    if stored.run.init_from:
        sections = inherit(sections, stored)
    # What a recipe leaves open was decided when the run began.
    decided = (("model", "vocab_size"), ("data", "source"), ("schedule", "decay_steps"), ("run", "init_from"))
    for section, name in decided:
        sections.setdefault(section, {}).setdefault(name, getattr(getattr(stored, section), name))
    machine = sections.setdefault("machine", {})
    if machine.get("dtype", "auto") == "auto":
        machine["dtype"] = stored.machine.dtype
    if ranks.store is None:  # how the ranks shared the work says nothing about one process
        machine["parallel"] = "auto"
    config = changes.apply(sections, stored.model.vocab_size, note)
    if config.training.micro_batch == "auto":
        same = dataclasses.replace(config.training, micro_batch=stored.training.micro_batch)
        config = dataclasses.replace(config, training=same)
    check_resumable(stored, config)
    check_ranks(config, ranks)
    return config


def _open_initial_run(recipe: str, changes: Changes) -> InitialRun | None:
    """The run whose weights a new one begins with, if any."""
    if init_from := changes.values.get("run.init_from"):
        return open_initial_run(init_from)
    if recipe == FINETUNE:
        raise UserError("the recipe finetune goes on with the weights of another run: name it with --init-from RUN")
    return None


def find_runtime(config: RunConfig, ranks: Ranks, note: Note = quiet) -> Runtime:
    """The runtime that a config asks for. Raises UserError for a device or a tracker that is not here."""
    machine = config.machine
    for tracker in config.evaluation.track:
        check_installed(tracker)
    runtime = build_runtime(
        machine.device, machine.dtype, machine.compile,
        ranks=ranks, parallel=machine.parallel, activation_checkpointing=machine.activation_checkpointing,
    )  # fmt: skip
    for line in runtime.notes:
        note(line)
    return runtime
