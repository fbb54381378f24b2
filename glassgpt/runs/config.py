"""The whole configuration of a run: recipe, then overrides, strictly; and what a resumed run may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from glassgpt.config import NONE, dump_toml, from_dict, parse_override, read_toml, to_dict
from glassgpt.data.corpora import STDIN
from glassgpt.data.dataset_cache import DataConfig
from glassgpt.errors import UserError, unknown
from glassgpt.evaluation.suites import check_suite
from glassgpt.models import ModelConfig, find_architecture
from glassgpt.runtime.device import PARALLEL, PRECISIONS
from glassgpt.runtime.distributed import Ranks
from glassgpt.tokenizers import Tokenizer, TokenizerConfig, load_tokenizer
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.training.optimizers import OptimizerConfig
from glassgpt.training.schedules import ScheduleConfig, cooldown_steps
from glassgpt.training.trackers import check_tracker

FORMAT = 2
# What each format has added to the one before, and the value by which an older run was made.
ADDED: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "data": {"document_mask": False},
        "training": {
            "init_from": "", "parallel": "auto", "activation_checkpointing": False, "loss_chunk": 0, "eval_suites": [],
            "eval_suite_every": 0, "eval_suite_limit": 0, "eval_suite_file": "", "track": [],
        },
    }
}  # fmt: skip
Sections = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how much at a time, and how often to look. Raises UserError for a value out of range."""

    max_steps: int = 2000
    batch_tokens: int = 768  # per optimizer step, over all ranks
    micro_batch: int | Literal["auto"] = 0  # rows per pass; 0: the whole batch in one; auto: the most that fit
    grad_clip: float = 1.0  # largest global gradient norm; 0: no clipping
    seed: int = 1337
    init_from: str = ""  # the run that the first weights, the sizes and the tokenizer came from; set by --init-from
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    parallel: str = "auto"  # how ranks share the work: ddp, fsdp, none; auto: ddp where torchrun has started several
    activation_checkpointing: bool = False  # run each block again for its gradient: less memory, more time
    loss_chunk: int = 0  # tokens whose logits are held at once, computed twice then; 0: all of a pass
    overfit_batch: bool = False  # the first batch again and again, down to a loss near zero
    log_every: int = 10  # steps between lines of progress
    eval_every: int = 250  # steps between validations; 0: only at the end
    eval_tokens: int = 20_000  # of the validation split, at each of them; the whole split at the end
    eval_suites: tuple[str, ...] = ()  # "hellaswag": put to the model while it trains
    eval_suite_every: int = 0  # steps between that; 0: as eval_every
    eval_suite_limit: int = 0  # the first so many items; 0: all
    eval_suite_file: str = ""  # the items, JSON lines; "": the published ones
    sample_every: int = 250  # steps between samples; 0: none
    sample_tokens: int = 80
    checkpoint_every: int = 250  # steps between checkpoints; 0: only the first, the best and the last
    keep_last: int = 2  # checkpoints that can be resumed from
    snapshots: int = 20  # weights kept at log-spaced steps, to watch it learn
    track: tuple[str, ...] = ()  # swanlab, trackio, wandb, tensorboard: where figures and samples go as well

    def __post_init__(self) -> None:
        least = {
            "max_steps": 1, "batch_tokens": 1, "micro_batch": 0, "grad_clip": 0, "seed": 0, "loss_chunk": 0,
            "log_every": 1, "eval_every": 0, "eval_tokens": 1, "eval_suite_every": 0, "eval_suite_limit": 0,
            "sample_every": 0, "sample_tokens": 1, "checkpoint_every": 0, "keep_last": 1, "snapshots": 0,
        }  # fmt: skip
        for field, minimum in least.items():
            value = getattr(self, field)
            if value == "auto":  # micro_batch alone may be so, by its type
                continue
            if not minimum <= value < float("inf"):
                raise UserError(f"training.{field} = {value} is out of range: it must be at least {minimum}")
        if self.seed >= 1 << 63:  # torch's generators take no more than 64 bits, and a step may be added
            raise UserError(f"training.seed = {self.seed} is out of range: it must be below 2^63")
        if self.dtype not in PRECISIONS:
            raise unknown("dtype", self.dtype, PRECISIONS)
        for suite in self.eval_suites:
            check_suite(suite)
        for tracker in self.track:
            check_tracker(tracker)
        if self.parallel not in PARALLEL:
            raise unknown("training.parallel", self.parallel, PARALLEL)


# On --resume these may change: length, device, ranks, logging and evaluation. All others decide what the weights are.
CHANGEABLE = frozenset(
    f"training.{field}"
    for field in (
        "max_steps", "device", "parallel", "activation_checkpointing", "log_every", "eval_every", "eval_tokens",
        "eval_suites", "eval_suite_every", "eval_suite_limit", "eval_suite_file", "track", "sample_every",
        "sample_tokens", "checkpoint_every", "keep_last", "snapshots",
    )
)  # fmt: skip


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run, section by section."""

    architecture: str
    model: ModelConfig
    data: DataConfig
    tokenizer: TokenizerConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    training: TrainingConfig

    def __post_init__(self) -> None:
        tokens, block = self.training.batch_tokens, self.model.block_size
        if tokens % block:
            near = max(block, tokens - tokens % block)
            raise UserError(
                f"training.batch_tokens = {tokens} is not a whole number of rows of"
                f" model.block_size = {block}: try {near}"
            )
        if self.schedule.name != "constant" and self.schedule.min_lr > self.optimizer.lr:
            raise UserError(
                f"schedule.min_lr = {self.schedule.min_lr} is above optimizer.lr = {self.optimizer.lr}:"
                " lower one, or raise the other"
            )

    @property
    def batch_rows(self) -> int:
        """Rows of block_size tokens in the global batch."""
        return self.training.batch_tokens // self.model.block_size

    def rows_of_pass(self, rank_rows: int) -> int:
        """Of the `rank_rows` rows of a rank. Raises UserError while `training.micro_batch` is "auto"."""
        if self.training.micro_batch == "auto":  # `train` decides it as a run begins
            raise UserError("training.micro_batch = auto: give a number of rows, or begin a run with glassgpt train")
        return self.training.micro_batch or rank_rows


def parse_run_config(sections: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """Sections of plain values, as TOML gives them, to a checked config; missing fields take their defaults.

    `schedule.decay_steps` becomes `training.max_steps` where it is 0, and `schedule.cooldown_steps` its own default.
    """
    known = {"data": DataConfig, "tokenizer": TokenizerConfig, "optimizer": OptimizerConfig, "schedule": ScheduleConfig,
             "training": TrainingConfig}  # fmt: skip
    for name, fields in sections.items():
        if name not in known and name != "model":
            raise unknown("section", name, ["model", *known])
        _check_section(name, fields)
    model = dict(sections.get("model", {}))
    architecture = model.pop("architecture", "gpt2")
    if isinstance(rows := model.get("padded_vocab_size"), int):
        model.setdefault("vocab_size", rows)  # only until the tokenizer is known, see `with_vocab_size`
    parsed: dict[str, Any] = {name: from_dict(cls, sections.get(name, {}), where=name) for name, cls in known.items()}
    if parsed["schedule"].decay_steps == 0:
        parsed["schedule"] = replace(parsed["schedule"], decay_steps=parsed["training"].max_steps)
    if parsed["schedule"].name == "wsd":
        parsed["schedule"] = replace(parsed["schedule"], cooldown_steps=cooldown_steps(parsed["schedule"]))
    return RunConfig(
        architecture=architecture,
        model=from_dict(find_architecture(str(architecture)).config, model, where="model"),
        **parsed,
    )


def _check_section(name: str, fields: Any) -> None:
    if not isinstance(fields, Mapping):
        raise UserError(f"{name} = {fields!r} is not a section: write [{name}] and its fields below it")


def config_sections(config: RunConfig) -> Sections:
    """The inverse of `parse_run_config`: every field, defaults too."""
    sections: Sections = {"model": {"architecture": config.architecture, **to_dict(config.model)}}
    for name in ("data", "tokenizer", "optimizer", "schedule", "training"):
        sections[name] = to_dict(getattr(config, name))
    return sections


def dump_config(config: RunConfig) -> str:
    """The text of a run's config.toml."""
    return dump_toml({"format": FORMAT, **config_sections(config)})


def load_config(path: Path) -> RunConfig:
    """The config of a run, of this format or an older one. Raises UserError for one that is damaged or newer."""
    sections = read_toml(path)
    found = sections.pop("format", None)
    if found not in (*ADDED, FORMAT - len(ADDED)):
        raise UserError(f"{path} has format {found}, this version of glassgpt reads formats up to {FORMAT}")
    try:
        for number in range(found + 1, FORMAT + 1):
            for section, fields in ADDED[number].items():
                _check_section(section, sections.setdefault(section, {}))
                sections[section] = fields | sections[section]
        model = sections.get("model")
        if isinstance(model, dict) and "padded_vocab_size" not in model and _pads(model):
            sections["model"] = migrate_vocab(model, _recorded_vocab_size(path.parent))
        config = parse_run_config(sections)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for section, fields in config_sections(config).items():  # a default for what is missing would be a guess
        for field in fields:
            if field not in sections.get(section, {}):
                raise UserError(f"{path} is damaged: it has no {section}.{field}; restore the file, or add the field")
    return config


def migrate_vocab(model: Mapping[str, Any], n_ids: int | None) -> dict[str, Any]:
    """A [model] section from before there was `padded_vocab_size`: `vocab_size` then counted the padding too.

    `n_ids` is the tokenizer's number of ids; None for an imported model, which has no padding.
    """
    rows = model.get("vocab_size")
    if n_ids is None or not isinstance(rows, int) or rows <= n_ids:
        return {**model, "padded_vocab_size": NONE}
    return {**model, "vocab_size": n_ids, "padded_vocab_size": rows}


def _recorded_vocab_size(folder: Path) -> int | None:
    """How many ids the tokenizer of a run has; None for a run that was imported and not trained."""
    if not (folder / "data.json").exists() and (folder / "origin.json").exists():
        return None
    return load_tokenizer(folder / "tokenizer.json").vocab_size


def with_vocab_size(sections: Sections, n_ids: int) -> tuple[Sections, str | None]:
    """The sections with `model.vocab_size` decided, now that the tokenizer's number of ids is known; and a note.

    Left out, it is `n_ids`. A larger one is read as `padded_vocab_size`, which it meant in older recipes, unless the
    section says that there is no padding (`padded_vocab_size = "none"`): the config of an imported model does.
    """
    model: dict[str, Any] = {"vocab_size": n_ids} | sections.get("model", {})
    rows, note = model["vocab_size"], None
    if isinstance(rows, int) and rows > n_ids and model.get("padded_vocab_size") != NONE and _pads(model):
        model |= {"vocab_size": n_ids, "padded_vocab_size": rows}
        note = f"model.vocab_size = {rows} is read as model.padded_vocab_size: the tokenizer has {n_ids} ids"
    return sections | {"model": model}, note


def _pads(model: Mapping[str, Any]) -> bool:
    return find_architecture(str(model.get("architecture", "gpt2"))).pads


def list_recipes() -> dict[str, Path]:
    """The recipes in the package, by name."""
    folder = Path(str(resources.files("glassgpt"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_recipe(name: str) -> Sections:
    """The sections of a recipe of the package, or of a TOML file of the user's; its title stays behind."""
    recipes = list_recipes()
    if name not in recipes and not name.endswith(".toml"):
        raise unknown("recipe", name, recipes)
    recipe = read_toml(recipes.get(name, Path(name)))
    sections = {section: fields for section, fields in recipe.items() if section not in ("about", "format")}
    for section, fields in sections.items():
        _check_section(section, fields)
    return sections


def apply_overrides(sections: Sections, overrides: Sequence[str]) -> Sections:
    """A copy of `sections` with each `section.field=value` put in."""
    result = {name: dict(fields) for name, fields in sections.items()}
    for text in overrides:
        set_field(result, *parse_override(text))
    return result


def set_field(sections: Sections, section: str, field: str, value: Any) -> None:
    """Sets one field in place.

    A recipe's padding goes away with it for a `model.vocab_size`, which once counted it too, and for an architecture
    that has none.
    """
    sections.setdefault(section, {})[field] = value
    if section == "model" and (field == "vocab_size" or (field == "architecture" and not _pads(sections[section]))):
        sections[section].pop("padded_vocab_size", None)


def check_ranks(config: RunConfig, ranks: Ranks) -> None:
    """Raises UserError for what several ranks cannot share."""
    rows, block, world = config.batch_rows, config.model.block_size, ranks.world_size
    if rows % world:
        near = [n * world * block for n in (rows // world, rows // world + 1) if n]
        raise UserError(
            f"training.batch_tokens = {config.training.batch_tokens} is {rows} rows of model.block_size = {block},"
            f" which {world} ranks cannot share evenly: try {' or '.join(map(str, near))}"
        )
    if ranks.several and config.training.loss_chunk:
        raise UserError(f"training.loss_chunk is for one process, and there are {world}: leave it at 0")
    if ranks.several and config.data.source == STDIN:
        raise UserError(f"{world} ranks cannot all read stdin: write the text to a file, and give that with --data")


def with_dtype(config: RunConfig, dtype: str) -> RunConfig:
    """The config with the dtype that `auto` has become: it decides what the weights become, on other devices too."""
    if config.training.dtype != "auto":
        return config
    return replace(config, training=replace(config.training, dtype=dtype))


def check_resumable(old: RunConfig, new: RunConfig) -> None:
    """Raises UserError, with both values, for a change that would make the resumed run another run."""
    before, after = config_sections(old), config_sections(new)
    changed = [
        f"{section}.{field} was {before[section].get(field)!r} and is now {value!r}"
        for section, fields in after.items()
        for field, value in fields.items()
        if f"{section}.{field}" not in CHANGEABLE and before[section].get(field) != value
    ]
    if changed:
        raise UserError(f"cannot resume: {'; '.join(changed)}; leave it as it was, or start a new run")


def document_eot_id(config: RunConfig, tokenizer: Tokenizer) -> int | None:
    """The id that begins a document, where `data.document_mask` keeps them apart; None where it does not.

    Raises UserError where the model cannot, or the tokenizer has no end-of-text.
    """
    if not config.data.document_mask:
        return None
    if not find_architecture(config.architecture).documents:
        raise UserError(
            f"data.document_mask = true: the architecture '{config.architecture}' cannot keep documents apart"
        )
    if END_OF_TEXT not in tokenizer.special_tokens:
        raise UserError(
            f"data.document_mask = true: the {tokenizer.name} tokenizer has no {END_OF_TEXT} between documents; prepare"
            " the data with one that has it"
        )
    return tokenizer.special_tokens[END_OF_TEXT]
