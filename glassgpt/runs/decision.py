"""Decides, on the first rank, which run to train, with which configuration and data, and from which step.

The decision is a plain value. It is sent to the other ranks once, as JSON, and every rank builds its session from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glassgpt.config import NONE, from_dict, to_dict
from glassgpt.data.corpora import Corpus, load_text
from glassgpt.data.dataset import is_tokenized, tokenizer_of
from glassgpt.data.manifest import Manifest
from glassgpt.errors import UserError, option
from glassgpt.ownership import is_run_folder
from glassgpt.runs.config import (
    ROUNDING_SETTINGS,
    RunConfig,
    Sections,
    TrainingConfig,
    check_ranks,
    check_resumable,
    config_sections,
    load_config,
    load_recipe,
    parse_overrides,
    parse_run_config,
    quiet,
    with_dtype,
    with_settings,
    with_vocab_size,
)
from glassgpt.runs.folder import check_free, check_trained, find_last, has_ended, is_run, missing_run
from glassgpt.runs.init_from import EXAMPLES, FINETUNE, InitialRun, inherit, open_initial_run
from glassgpt.runs.micro_batch import with_micro_batch
from glassgpt.runs.minutes import TimeLimit
from glassgpt.runs.stages import find_stage
from glassgpt.runtime.device import Runtime, build_runtime
from glassgpt.runtime.distributed import ALONE, Ranks
from glassgpt.tokenizers import TokenizerConfig, load_tokenizer
from glassgpt.training.checkpoint import Checkpoint
from glassgpt.training.metrics import read_lines
from glassgpt.training.trackers import check_installed

# Changes to a recipe for --overfit-batch: a single batch, and no regularisation, which would prevent overfitting it.
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
    """A user's changes to a recipe, in the order in which they are applied."""

    overrides: Sequence[str] = ()  # "section.field=value"
    values: Mapping[str, Any] = field(default_factory=dict)  # by "section.field"
    max_steps: int | None = None
    overfit_batch: bool = False

    def apply(self, sections: Sections, n_ids: int | None = None, note: Note = quiet) -> RunConfig:
        """Applies the changes to `sections` and returns the checked config; `note` as in `load_recipe`.

        `n_ids` is the tokenizer's number of ids, which sets `model.vocab_size`; None while it is not known.
        """
        if self.overfit_batch:
            sections = {
                name: sections.get(name, {}) | OVERFIT.get(name, {}) for name in sections.keys() | OVERFIT.keys()
            }
        sections = with_settings(sections, {**parse_overrides(self.overrides, note), **self.values})
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
        fields = {**to_dict(config.training), "max_steps": self.max_steps}
        training = from_dict(TrainingConfig, fields, where="training")
        return dataclasses.replace(config, training=training)

    def _names_tokenizer(self) -> bool:
        """Whether the user, not only the recipe, chose a tokenizer. That of a prepared folder must then match."""
        return any(path.startswith("tokenizer.") for path in (*self.overrides, *self.values))


@dataclass(frozen=True)
class Decision:
    """Everything a rank needs to build its session. Plain values only, because it is sent as JSON."""

    folder: str
    config: Sections  # every field of every section
    data: dict[str, Any]  # description of the data, from `StageKind`
    tokenizer: dict[str, Any]
    origin: dict[str, Any] | None = None  # source of a new run's initial weights; None: random
    checkpoint: dict[str, Any] | None = None  # state of the checkpoint to resume from; None: a new run
    recorded: int = 0  # last step in metrics.jsonl: trackers may already have it
    finished: bool = False  # nothing is left to train
    changed: dict[str, Any] = field(default_factory=dict)  # settings that end bit-exactness: [old, new] by name
    pace: dict[str, Any] | None = None  # of a run with a time limit: see `Pace`, on the clock of the first rank

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Decision:
        """The inverse of `to_json`."""
        return cls(**fields)

    def resumed_from(self) -> Checkpoint:
        """The checkpoint that a resumed run starts from. Its files are on the first rank's disk."""
        assert self.checkpoint is not None
        return Checkpoint(Path(self.folder) / "checkpoints" / f"step-{self.checkpoint['step']:08d}", self.checkpoint)


def decide_new_run(
    folder: Path,
    recipe: str,
    changes: Changes,
    *,
    corpus: Corpus | None = None,
    overwrite: bool = False,
    time_limit: TimeLimit | None = None,
    ranks: Ranks = ALONE,
    note: Note = quiet,
) -> Decision:
    """Decides on a new run. Everything is checked and prepared before the folder, or an old run in it, is touched."""
    note = once(note)
    check_free(folder, overwrite, resumes=True)
    sections, initial = _load_recipe(recipe, note), _open_initial_run(recipe, changes)
    if initial is not None:
        sections = initial.sections(sections)
    config = changes.apply(sections, note=note)
    if initial is not None:
        initial.check(config)
    elif config.run.init_from:
        raise UserError(f"run.init_from only records {option(init_from='RUN')}: use that")
    check_ranks(config, ranks)
    runtime = find_runtime(config, ranks, note)
    if time_limit is not None and not is_tokenized(config.data.source):
        corpus = corpus or load_text(config.data.source)
        fraction = {"val_fraction": time_limit.validation_fraction(len(corpus.text))}
        sections = sections | {"data": fraction | sections.get("data", {})}
        config = changes.apply(sections, note=note)
    data, tokenizer, remark = find_stage(config.run.stage).prepare(config, corpus)
    note(remark)

    def settled(settings: Mapping[str, Any]) -> RunConfig:
        chosen = changes.apply(with_settings(sections, settings), tokenizer.vocab_size, note)
        return with_dtype(chosen, runtime.precision)

    config = settled({})
    pace = None
    if time_limit is not None:
        plan = time_limit.plan(settled, Manifest.from_dict(data), tokenizer, runtime, note)
        config, pace = plan.config, plan.pace.to_json()
    if initial is not None:  # again: the tokenizer has decided the vocabulary
        initial.check(config)
    if config.model.vocab_size < tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size = {config.model.vocab_size} is too small: the tokenizer has"
            f" {tokenizer.vocab_size} ids; leave it out to use that number"
        )
    config = with_micro_batch(config, runtime, note)
    origin = None if initial is None else dataclasses.asdict(initial.origin())
    return Decision(str(folder), config_sections(config), data, tokenizer.to_dict(), origin, pace=pace)


def once(note: Note) -> Note:
    """Drops repeated lines: the changes are applied twice, before and after the tokenizer is known."""
    noted: set[str] = set()

    def note_once(line: str) -> None:
        if line not in noted:
            noted.add(line)
            note(line)

    return note_once


def decide_resumed_run(
    folder: Path,
    recipe: str | None,
    changes: Changes,
    *,
    corpus: Corpus | None = None,
    ranks: Ranks = ALONE,
    note: Note = quiet,
) -> Decision:
    """Decides how to resume the run in `folder`, from its last resumable checkpoint."""
    if not is_run_folder(folder):
        raise missing_run(folder)
    stored = load_config(folder / "config.toml")
    config = _config_of_resumed(folder, recipe, changes, ranks, note)
    runtime = find_runtime(config, ranks, note)
    last = find_last(folder, config.training.max_steps)
    finished = has_ended(folder) and (last.step == config.training.max_steps or config.training.overfit_batch)
    if config.training.micro_batch == "auto":
        if finished or recipe is not None:  # the command that began the run, given again: keep what it chose
            same = dataclasses.replace(config.training, micro_batch=stored.training.micro_batch)
            config = dataclasses.replace(config, training=same)
        config = with_micro_batch(config, runtime, note)
    given = corpus is not None  # even a finished run is not that of another text
    data = find_stage(config.run.stage).find_again(folder, corpus) if given or not finished else {}
    lines = read_lines(folder / "metrics.jsonl")
    before, after = config_sections(stored)["training"], config_sections(config)["training"]
    changed = {f"training.{name}": [before[name], after[name]] for name in ROUNDING_SETTINGS}
    changed = {} if finished else {name: values for name, values in changed.items() if values[0] != values[1]}
    for name, (old, new) in changed.items():
        note(
            f"{name} changes from {old} to {new} after step {last.step}: from there the run equals one that kept {old}"
            " only within rounding, not bit for bit"
        )
    return Decision(
        str(folder),
        config_sections(config),
        data,
        load_tokenizer(folder / "tokenizer.json").to_dict(),
        checkpoint=last.state,
        recorded=int(lines[-1]["step"]) if lines else 0,
        finished=finished,
        changed=changed,
    )


def _config_of_resumed(folder: Path, recipe: str | None, changes: Changes, ranks: Ranks, note: Note) -> RunConfig:
    """The run's config with the changes applied. Raises UserError for a change that a resumed run may not make."""
    check_trained(folder)
    stored = load_config(folder / "config.toml")
    sections = config_sections(stored) if recipe is None else _load_recipe(recipe, note)
    if stored.run.init_from:
        sections = inherit(sections, stored)
    # Fields that a recipe may leave open were set when the run started.
    decided = (
        ("model", "vocab_size"), ("data", "source"), ("schedule", "decay_steps"), ("run", "init_from"),
        ("evaluation", "every"), ("training", "minutes"), ("schedule", "replanned"),
    )  # fmt: skip
    for section, name in decided:
        sections.setdefault(section, {}).setdefault(name, getattr(getattr(stored, section), name))
    if stored.training.minutes is not None:  # its length was not chosen by a recipe, but by the clock
        kept = config_sections(stored)
        sections.setdefault("training", {})["max_steps"] = stored.training.max_steps
        for name in ("warmup_steps", "decay_steps"):
            sections["schedule"][name] = kept["schedule"][name]
    if "padded_vocab_size" in sections["model"]:  # a recipe may have gained padding since the run was started
        sections["model"]["padded_vocab_size"] = getattr(stored.model, "padded_vocab_size", None) or NONE
    # Only the user changes these, not a recipe: a run that once ran out of memory keeps what made it fit.
    for name in ROUNDING_SETTINGS:
        sections.setdefault("training", {})[name] = config_sections(stored)["training"][name]
    machine = sections.setdefault("machine", {})
    if machine.get("dtype", "auto") == "auto":
        machine["dtype"] = stored.machine.dtype
    if ranks.store is None:  # the mode of several ranks means nothing for one process
        machine["parallel"] = "auto"
    config = changes.apply(sections, stored.model.vocab_size, note)
    check_resumable(stored, config)
    check_ranks(config, ranks)
    return config


def _load_recipe(name: str, note: Note) -> Sections:
    """As `load_recipe`; the error for the name of a run says how to go on with it."""
    try:
        return load_recipe(name, note)
    except UserError:
        if not is_run(name):
            raise
        how, again = option(run=name, resume=True), option(init_from=name)
        raise UserError(f"'{name}' is a run, not a recipe: go on with {how}, or begin a new run with {again}") from None


def _open_initial_run(recipe: str, changes: Changes) -> InitialRun | None:
    """The run that provides the initial weights, or None."""
    init_from = changes.values.get("run.init_from")
    if init_from is not None and init_from != NONE:
        initial = open_initial_run(init_from)
        if recipe == FINETUNE and (kind := initial.kind) != "decoder":
            raise UserError(
                f"{initial.run.folder} holds an {kind}, and the recipe finetune trains decoders: begin with a recipe of"
                f" its kind, such as {EXAMPLES[kind]}, and {option(init_from=str(init_from))}"
            )
        return initial
    if recipe == FINETUNE:
        raise UserError(
            f"the recipe finetune starts from the weights of another run: name it with {option(init_from='RUN')}"
        )
    return None


def find_runtime(config: RunConfig, ranks: Ranks, note: Note = quiet) -> Runtime:
    """Builds the runtime of a config. Raises UserError for a device or tracker that is not available."""
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
