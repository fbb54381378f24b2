"""The configuration of a run: parsed from a recipe and overrides, written to config.toml, compared on --resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from glassgpt.config import NONE, dump_toml, from_dict, parse_override, read_toml, to_dict
from glassgpt.data.corpora import STDIN
from glassgpt.data.dataset_cache import DataConfig
from glassgpt.data.encoders import document_start
from glassgpt.errors import UserError, check_least, counted, unknown
from glassgpt.evaluation.suites import check_suite
from glassgpt.models import ARCHITECTURES, Kind, ModelConfig, find_architecture
from glassgpt.runs.gpt3_recipes import GPT3_SIZES, gpt3_recipe
from glassgpt.runtime.device import MachineConfig
from glassgpt.runtime.distributed import Ranks
from glassgpt.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer
from glassgpt.training.checkpoint_manager import CheckpointConfig
from glassgpt.training.config_formats import (
    FORMAT,
    NO_STAGE,
    PADDING_FORMAT,
    check_section,
    current_setting,
    current_settings,
    read_config,
)
from glassgpt.training.config_formats import Sections as Sections
from glassgpt.training.optimizers import OptimizerConfig
from glassgpt.training.schedules import ScheduleConfig, cooldown_steps
from glassgpt.training.trackers import check_tracker

# Sections that may change on --resume, with exceptions in both directions. Every other field affects the weights.
TRAINS: dict[str, Kind] = {"pretrain": "decoder", "mlm": "encoder", "seq2seq": "encoder-decoder"}  # by the stage
DATA_OF_STAGE = {"mlm": "mask_fraction", "seq2seq": "pairs"}  # of [data]: what makes the targets of a stage
CHANGEABLE_SECTIONS = ("machine", "evaluation", "checkpoint")
FIXED_EXCEPTIONS = ("machine.dtype", "machine.compile")
ROUNDING_SETTINGS = ("micro_batch", "loss_chunk")  # of [training]: they change only the rounding, and save memory
CHANGEABLE_EXCEPTIONS = ("training.max_steps", *(f"training.{name}" for name in ROUNDING_SETTINGS))

VALIDATION_INTERVALS = (250, 100, 50, 20, 10, 5, 2, 1)  # steps; `evaluation.every = "auto"` is one of them
MIN_INTERVALS = 5  # enough to see a curve; each costs as much as a few steps


@dataclass(frozen=True)
class RunKindConfig:
    """Training stage of a run (see `glassgpt.runs.stages`) and the source of its initial weights."""

    stage: str = "pretrain"  # pretrain: next token; mlm: hidden tokens; seq2seq: target of a source; none: imported
    init_from: str | None = None  # run whose best weights are the initial ones (`--init-from`); none: random weights


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training loop that affect the weights. Raises UserError for a value out of range."""

    max_steps: int = 2000  # optimizer steps of the run
    minutes: float | None = None  # the time of the whole run that max_steps was planned for (`--minutes`); none: any
    batch_tokens: int = 768  # tokens per optimizer step, over all ranks
    micro_batch: int | Literal["auto"] | None = None  # rows per pass; none: all rows of a rank; auto: as many as fit
    grad_clip: float = 1.0  # maximum global norm of the gradient; 0: no clipping
    seed: int = 1337  # random seed (initialisation, data order, dropout, samples)
    loss_chunk: int | None = None  # tokens whose logits are in memory at once, computed twice; none: all of a pass
    expert_balance: float = 0.0  # coefficient of the load-balancing loss of a mixture of experts; 0: off
    overfit_batch: bool = False  # train on the first batch only, until its loss is near zero

    def __post_init__(self) -> None:
        least = {
            "max_steps": 1,
            "batch_tokens": 1,
            "micro_batch": 1,
            "grad_clip": 0,
            "seed": 0,
            "loss_chunk": 1,
            "minutes": 0,
            "expert_balance": 0,
        }
        check_least("training", self, least)


@dataclass(frozen=True)
class EvaluationConfig:
    """Validation, suites, samples and logs of a training run. Raises UserError for bad values and unknown names."""

    every: int | Literal["auto"] = "auto"  # steps between validations; 0: only at the end; auto: by length, up to 250
    tokens: int = 20_000  # validation tokens per evaluation; the whole split at the end of the run
    suites: tuple[str, ...] = ()  # test suites to run during training: hellaswag
    suite_every: int | None = None  # steps between suite runs; none: same as `evaluation.every`, 250 if that is auto
    suite_limit: int | None = None  # use only the first N items of a suite; none: all
    suite_file: str | None = None  # JSON lines file with the items; none: the published ones
    sample_every: int = 250  # steps between samples, with one at the end; 0: none
    sample_tokens: int = 80  # tokens per sample
    log_every: int = 10  # steps between progress lines
    track: tuple[str, ...] = ()  # trackers that also get figures and samples: swanlab, trackio, wandb, tensorboard

    def __post_init__(self) -> None:
        least = {
            "every": 0, "tokens": 1, "suite_every": 1, "suite_limit": 1, "sample_every": 0, "sample_tokens": 1,
            "log_every": 1,
        }  # fmt: skip
        check_least("evaluation", self, least)
        for suite in self.suites:
            check_suite(suite)
        for tracker in self.track:
            check_tracker(tracker)


# All sections of a run's config except [model], whose dataclass depends on the architecture.
SECTIONS: dict[str, type[Any]] = {
    "run": RunKindConfig,
    "data": DataConfig,
    "tokenizer": TokenizerConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "training": TrainingConfig,
    "machine": MachineConfig,
    "evaluation": EvaluationConfig,
    "checkpoint": CheckpointConfig,
}


@dataclass(frozen=True)
class RunConfig:
    """Complete configuration of a run, one dataclass per section."""

    run: RunKindConfig
    architecture: str
    model: ModelConfig
    data: DataConfig
    tokenizer: TokenizerConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    training: TrainingConfig
    machine: MachineConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig

    def __post_init__(self) -> None:
        tokens, block = self.training.batch_tokens, self.model.block_size
        if tokens % block:
            near = max(block, tokens - tokens % block)
            raise UserError(
                f"training.batch_tokens = {tokens} is not a multiple of model.block_size = {block}: try {near}"
            )
        if self.optimizer.name == "muon" and self.machine.parallel == "fsdp":
            raise UserError(
                "optimizer.name = muon needs whole matrices, and --parallel fsdp divides them: use ddp, or adamw"
            )
        if self.schedule.name != "constant" and self.schedule.min_lr > self.optimizer.lr:
            raise UserError(
                f"schedule.min_lr = {self.schedule.min_lr} is above optimizer.lr = {self.optimizer.lr}:"
                " lower one, or raise the other"
            )
        if self.training.expert_balance and not hasattr(self.model, "n_expert"):
            raise UserError(
                f"training.expert_balance = {self.training.expert_balance} is for a mixture of experts, and the"
                f" architecture '{self.architecture}' has no experts: leave it out"
            )
        kind = find_architecture(self.architecture).kind
        if kind != "decoder":
            self._check_no_decoder_settings()
        if TRAINS.get(self.run.stage) == kind:  # else another sentence says that they do not fit
            self._check_data_of_stage()

    def _check_no_decoder_settings(self) -> None:
        """Raises UserError for a setting that only a decoder has a use for: the other stages would ignore it."""
        given = {
            "evaluation.suites": self.evaluation.suites,
            "training.loss_chunk": self.training.loss_chunk,
            "data.document_mask": self.data.document_mask,
        }
        for name, value in given.items():
            if value:
                raise UserError(
                    f"{name} needs a model that predicts the next token, and the architecture '{self.architecture}'"
                    " does not: leave it out"
                )

    def _check_data_of_stage(self) -> None:
        """Raises UserError for a setting of the data that only another stage reads."""
        for stage, name in DATA_OF_STAGE.items():
            if getattr(self.data, name) != getattr(DataConfig, name) and self.run.stage != stage:
                raise UserError(f"data.{name} is for the stage {stage}, and this is {self.run.stage}: leave it out")

    @property
    def batch_rows(self) -> int:
        """Rows of block_size tokens in the global batch."""
        return self.training.batch_tokens // self.model.block_size

    def describe_batch(self) -> str:
        """The global batch in words. A row of an encoder-decoder is a pair, which is mostly shorter than block_size."""
        if find_architecture(self.architecture).kind == "encoder-decoder":
            return f"{counted(self.batch_rows, 'pair')} of up to {self.model.block_size:,} tokens"
        return f"{self.training.batch_tokens:,} tokens"

    @property
    def validation_interval(self) -> int:
        """Steps between validations; 0: only at the end. "auto" gives a short run a curve too, if that is cheap."""
        every = self.evaluation.every
        if every != "auto":
            return every
        for_a_curve = self.training.max_steps / MIN_INTERVALS
        # Steps that cost as much as one validation: a forward pass is a third of a step.
        cost = self.evaluation.tokens / (3 * self.training.batch_tokens)
        return next((steps for steps in VALIDATION_INTERVALS if steps <= max(for_a_curve, cost)), 1)

    @property
    def suite_interval(self) -> int:
        """Steps between runs of the test suites; 0: only at the end. They are too slow for the intervals of "auto"."""
        every = self.evaluation.every
        return self.evaluation.suite_every or (VALIDATION_INTERVALS[0] if every == "auto" else every)

    def passes(self, first: int, last: int) -> list[tuple[int, int]]:
        """The micro-batches of a rank that has the rows `first` to `last` of the global batch: the rows of each."""
        rows = self.rows_of_pass(last - first)
        return [(start, min(start + rows, last)) for start in range(first, last, rows)]

    def rows_of_pass(self, rank_rows: int) -> int:
        """Micro-batch of a rank that has `rank_rows` rows per step. Raises UserError while it is still "auto"."""
        if self.training.micro_batch == "auto":  # `train` replaces it when a run starts
            raise UserError("training.micro_batch = auto: give a number of rows, or start a run with glassgpt train")
        return self.training.micro_batch or rank_rows


def parse_run_config(sections: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """Builds a checked config from sections of plain TOML values. Missing fields take their defaults.

    If not set, `schedule.decay_steps` becomes `training.max_steps`, and `schedule.cooldown_steps` of a wsd schedule
    its own default.
    """
    for name, fields in sections.items():
        if name not in SECTIONS and name != "model":
            raise unknown("section", name, ["model", *SECTIONS])
        check_section(name, fields)
    model = dict(sections.get("model", {}))
    architecture = model.pop("architecture", "gpt2")
    if isinstance(rows := model.get("padded_vocab_size"), int):
        model.setdefault("vocab_size", rows)  # a placeholder until the tokenizer is known, see `with_vocab_size`
    parsed: dict[str, Any] = {
        name: from_dict(cls, sections.get(name, {}), where=name) for name, cls in SECTIONS.items()
    }
    if parsed["schedule"].decay_steps is None:
        parsed["schedule"] = replace(parsed["schedule"], decay_steps=parsed["training"].max_steps)
    if parsed["schedule"].name == "wsd":
        parsed["schedule"] = replace(parsed["schedule"], cooldown_steps=cooldown_steps(parsed["schedule"]))
    return RunConfig(
        architecture=architecture,
        model=from_dict(find_architecture(str(architecture)).config, model, where="model"),
        **parsed,
    )


def config_sections(config: RunConfig) -> Sections:
    """Inverse of `parse_run_config`: every field, including defaults."""
    sections = {name: to_dict(getattr(config, name)) for name in SECTIONS}
    model = {"architecture": config.architecture, **to_dict(config.model)}
    return {"run": sections.pop("run"), "model": model, **sections}


def dump_config(config: RunConfig) -> str:
    """The text of a run's config.toml."""
    return dump_toml({"format": FORMAT, **config_sections(config)})


def load_config(path: Path) -> RunConfig:
    """Reads a config.toml of this format or an older one. Raises UserError if it is damaged or newer."""
    sections = read_config(path)
    found = sections.pop("format", None)
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, this version of glassgpt reads formats up to {FORMAT}")
    try:
        model = sections.get("model")
        older = read_toml(path)["format"] < PADDING_FORMAT
        if older and isinstance(model, dict) and "padded_vocab_size" not in model and _pads(model):
            imported = sections["run"]["stage"] == NO_STAGE
            n_ids = None if imported else load_tokenizer(path.parent / "tokenizer.json").vocab_size
            sections["model"] = migrate_vocab(model, n_ids)
        _check_complete(sections)
        return parse_run_config(sections)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _check_complete(sections: Sections) -> None:
    """Raises UserError if a field is missing from a run's config: filling in a default would be a guess."""
    for section, values in sections.items():
        check_section(section, values)
    architecture = str(sections.get("model", {}).get("architecture", "gpt2"))
    for section, config in {**SECTIONS, "model": find_architecture(architecture).config}.items():
        names = [field.name for field in dataclasses.fields(config)]
        for name in ["architecture", *names] if section == "model" else names:
            if name not in sections.get(section, {}):
                raise UserError(f"{section}.{name} is missing: restore the file, or add the field")


def migrate_vocab(model: Mapping[str, Any], n_ids: int | None) -> dict[str, Any]:
    """Migrates a [model] section without `padded_vocab_size`, whose `vocab_size` includes the padding.

    `n_ids` is the tokenizer's number of ids; None for an imported model, which has no padding.
    """
    rows = model.get("vocab_size")
    if n_ids is None or not isinstance(rows, int) or rows <= n_ids:
        return {**model, "padded_vocab_size": NONE}
    return {**model, "vocab_size": n_ids, "padded_vocab_size": rows}


def with_vocab_size(sections: Sections, n_ids: int) -> tuple[Sections, str | None]:
    """Sets `model.vocab_size`, given that the tokenizer has `n_ids` ids. Returns the sections, and a note or None.

    If missing, it becomes `n_ids`. A larger value is read as `padded_vocab_size`, its meaning in older recipes. The
    exception is a section with `padded_vocab_size = "none"`, such as that of an imported model: it has no padding.
    """
    model: dict[str, Any] = {"vocab_size": n_ids} | sections.get("model", {})
    rows, note = model["vocab_size"], None
    if isinstance(rows, int) and rows > n_ids and model.get("padded_vocab_size") != NONE and _pads(model):
        model |= {"vocab_size": n_ids, "padded_vocab_size": rows}
        note = f"model.vocab_size = {rows} is read as model.padded_vocab_size: the tokenizer has {n_ids} ids"
    return sections | {"model": model}, note


def _pads(model: Mapping[str, Any]) -> bool:
    return find_architecture(str(model.get("architecture", "gpt2"))).pads


def list_recipes() -> dict[str, dict[str, Any]]:
    """The package's recipes by name, smallest hardware first. Each also has the strings `about` and `needs`."""
    files = (Path(str(resources.files("glassgpt"))) / "recipes").glob("*.toml")
    recipes = {path.stem: read_toml(path) for path in sorted(files)}
    recipes |= {name: gpt3_recipe(name) for name in GPT3_SIZES}
    return dict(sorted(recipes.items(), key=lambda item: ("laptop", "GPU", "GPUs").index(item[1]["needs"])))


def quiet(line: str) -> None:
    """Discards a note."""


def load_recipe(name: str, note: Callable[[str], None] = quiet) -> Sections:
    """Loads a recipe of the package, or a user's TOML file, without its `about` and `needs`.

    `note` gets a line for each field whose name or value has changed since.
    """
    recipes = list_recipes()
    if name not in recipes and not name.endswith(".toml"):
        raise unknown("recipe", name, recipes)
    recipe = recipes[name] if name in recipes else read_toml(Path(name))
    sections = {section: fields for section, fields in recipe.items() if section not in ("about", "needs", "format")}
    for section, fields in sections.items():
        check_section(section, fields)
    settings = {f"{section}.{field}": value for section, fields in sections.items() for field, value in fields.items()}
    current: Sections = {section: {} for section in sections}
    for path, value in current_settings(settings, note).items():
        section, _, field = path.partition(".")
        current.setdefault(section, {})[field] = value
    return current


def apply_overrides(sections: Sections, overrides: Sequence[str], note: Callable[[str], None] = quiet) -> Sections:
    """Returns a copy of `sections` with each `section.field=value` applied; `note` as in `load_recipe`."""
    return with_settings(sections, parse_overrides(overrides, note))


def parse_overrides(overrides: Sequence[str], note: Callable[[str], None] = quiet) -> dict[str, Any]:
    """The values of "section.field=value" strings by "section.field", the last one of each."""
    settings = {}
    for text in overrides:
        section, field, value = parse_override(text)
        path, value = current_setting(f"{section}.{field}", value, note)
        settings[path] = value
    return settings


def with_settings(sections: Sections, settings: Mapping[str, Any]) -> Sections:
    """Returns a copy of `sections` with each value set; the keys are "section.field"."""
    result = {name: dict(fields) for name, fields in sections.items()}
    for path, value in settings.items():
        section, _, field = path.partition(".")
        result.setdefault(section, {})[field] = NONE if value is None else value
    # Drop the recipe's padding for a new vocab_size, which once included it, or an architecture without padding.
    new_sizes = "model.vocab_size" in settings or ("model.architecture" in settings and not _pads(result["model"]))
    if new_sizes and "model.padded_vocab_size" not in settings:
        result["model"].pop("padded_vocab_size", None)
    return result


def all_fields() -> list[str]:
    """Every "section.field" that `--set` may change, whatever the architecture."""
    sections = [*SECTIONS.items(), *(("model", architecture.config) for architecture in ARCHITECTURES.values())]
    return list(dict.fromkeys(f"{section}.{field.name}" for section, cls in sections for field in fields_of(cls)))


def check_ranks(config: RunConfig, ranks: Ranks) -> None:
    """Raises UserError if the ranks cannot share the batch evenly, or if several ranks would read stdin."""
    rows, block, world = config.batch_rows, config.model.block_size, ranks.world_size
    if rows % world:
        near = [n * world * block for n in (rows // world, rows // world + 1) if n]
        raise UserError(
            f"training.batch_tokens = {config.training.batch_tokens} is {rows} rows of model.block_size = {block},"
            f" which {world} ranks cannot share evenly: try {' or '.join(map(str, near))}"
        )
    if world > ranks.local_world_size and config.data.source == STDIN:  # one node finds the shards of its first rank
        raise UserError("the ranks of other nodes cannot read stdin: write the text to a file, and name it with --data")


def with_dtype(config: RunConfig, dtype: str) -> RunConfig:
    """Replaces dtype `auto` by `dtype`, so that a resume on another device keeps it: it affects the weights."""
    if config.machine.dtype != "auto":
        return config
    return replace(config, machine=replace(config.machine, dtype=dtype))


def may_change(section: str, field: str) -> bool:
    """Whether --resume may change this field."""
    path = f"{section}.{field}"
    return path in CHANGEABLE_EXCEPTIONS or (section in CHANGEABLE_SECTIONS and path not in FIXED_EXCEPTIONS)


def check_resumable(old: RunConfig, new: RunConfig) -> None:
    """Raises UserError, with the old and new values, for changed fields that a resumed run must keep."""
    before, after = config_sections(old), config_sections(new)
    changed = [
        f"{section}.{field} was {before[section].get(field)!r} and is now {value!r}"
        for section, fields in after.items()
        for field, value in fields.items()
        if not may_change(section, field) and before[section].get(field) != value
    ]
    if changed:
        raise UserError(f"cannot resume: {'; '.join(changed)}; leave it as it was, or start a new run")


def document_eot_id(config: RunConfig, tokenizer: Tokenizer) -> int | None:
    """Id of the token with which `data prepare` begins each document, for `data.document_mask`; None if that is off.

    Raises UserError if the architecture has no document mask, or the tokenizer no such token.
    """
    if not config.data.document_mask:
        return None
    if not find_architecture(config.architecture).takes_context:
        raise UserError(
            f"data.document_mask = true: the architecture '{config.architecture}' does not support document masks"
        )
    try:
        return document_start(tokenizer)[0]
    except UserError as error:
        raise UserError(f"data.document_mask = true: {error}") from None
