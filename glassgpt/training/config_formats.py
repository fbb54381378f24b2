"""Migrates settings of earlier versions: older config.toml formats, and old names in recipes and `--set`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glassgpt.config import NONE, read_toml
from glassgpt.errors import UserError

Sections = dict[str, dict[str, Any]]

FORMAT = 7  # of the config.toml that this version writes
PADDING_FORMAT = 3  # the first in which the padding of the embedding is a field of its own
NO_STAGE = "none"  # the run.stage of imported weights, which were not trained here


@dataclass(frozen=True)
class FormatChange:
    """What a format changed relative to the previous one, by "section.field"."""

    added: Mapping[str, Any] = field(default_factory=dict)  # the value that older runs used
    renamed: Mapping[str, str] = field(default_factory=dict)  # old name → new name
    unset: Mapping[str, Any] = field(default_factory=dict)  # by the new name: the old value that meant "not set"


CHANGES = {
    2: FormatChange(
        added={
            "data.document_mask": False,
            "training.init_from": "",
            "training.parallel": "auto",
            "training.activation_checkpointing": False,
            "training.loss_chunk": 0,
            "training.eval_suites": [],
            "training.eval_suite_every": 0,
            "training.eval_suite_limit": 0,
            "training.eval_suite_file": "",
            "training.track": [],
        }
    ),
    3: FormatChange(
        added={"run.stage": "pretrain"},
        renamed={
            "training.init_from": "run.init_from",
            "training.device": "machine.device",
            "training.dtype": "machine.dtype",
            "training.compile": "machine.compile",
            "training.parallel": "machine.parallel",
            "training.activation_checkpointing": "machine.activation_checkpointing",
            "training.eval_every": "evaluation.every",
            "training.eval_tokens": "evaluation.tokens",
            "training.eval_suites": "evaluation.suites",
            "training.eval_suite_every": "evaluation.suite_every",
            "training.eval_suite_limit": "evaluation.suite_limit",
            "training.eval_suite_file": "evaluation.suite_file",
            "training.sample_every": "evaluation.sample_every",
            "training.sample_tokens": "evaluation.sample_tokens",
            "training.log_every": "evaluation.log_every",
            "training.track": "evaluation.track",
            "training.checkpoint_every": "checkpoint.every",
            "training.keep_last": "checkpoint.keep_last",
            "training.snapshots": "checkpoint.snapshots",
        },
        unset={
            "run.init_from": "",
            "schedule.decay_steps": 0,
            "schedule.cooldown_steps": 0,
            "training.micro_batch": 0,
            "training.loss_chunk": 0,
            "evaluation.suite_every": 0,
            "evaluation.suite_limit": 0,
            "evaluation.suite_file": "",
        },
    ),
    4: FormatChange(added={"optimizer.momentum": 0.95, "optimizer.embedding_lr": NONE}),
    5: FormatChange(added={"schedule.replanned": [], "training.minutes": NONE}),
    6: FormatChange(added={"data.mask_fraction": 0.15, "data.pairs": NONE}),
    7: FormatChange(added={"training.expert_balance": 0.0}),
}


def read_config(path: Path) -> dict[str, Any]:
    """Reads the config.toml in a run folder and migrates an older format to the current one.

    Raises UserError for a file that is missing or not TOML. It does not check for missing fields.
    """
    contents = read_toml(path)
    found: Any = contents.get("format")
    if type(found) is not int or found not in (number - 1 for number in CHANGES):
        return contents
    sections: Sections = {name: value for name, value in contents.items() if name != "format"}
    for name, fields in sections.items():
        try:
            check_section(name, fields)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    for number in range(found + 1, FORMAT + 1):
        sections = _migrated(sections, CHANGES[number])
    if found < 3 and (path.parent / "origin.json").exists() and not (path.parent / "data.json").exists():
        sections["run"]["stage"] = NO_STAGE  # these formats showed it only by the files in the run folder
    return {"format": FORMAT, **sections}


def _migrated(sections: Sections, change: FormatChange) -> Sections:
    """Migrates sections from one format to the next; missing fields stay missing."""
    changed: Sections = {name: {} for name in sections}
    for section, fields in sections.items():
        for name, value in fields.items():
            old = f"{section}.{name}"
            new = change.renamed.get(old, old)
            _put(changed, new, NONE if _is_unset(change, new, value) else value)
    for new, value in change.added.items():
        section, _, name = new.partition(".")
        if name not in changed.get(section, {}):
            _put(changed, new, value)
    return changed


def _put(sections: Sections, path: str, value: Any) -> None:
    section, _, name = path.partition(".")
    sections.setdefault(section, {})[name] = value


def _is_unset(change: FormatChange, path: str, value: Any) -> bool:
    return path in change.unset and type(value) is type(change.unset[path]) and value == change.unset[path]


def check_section(name: str, fields: Any) -> None:
    """Raises UserError if there is a value instead of a section."""
    if not isinstance(fields, Mapping):
        raise UserError(f"{name} = {fields!r} is not a section: write [{name}] and its fields below it")


def current_setting(path: str, value: Any, note: Callable[[str], None]) -> tuple[str, Any]:
    """Translates a setting of any version to its current name and value.

    `note` receives one line if the name or the value changed.
    """
    new_path, new_value = path, value
    for change in CHANGES.values():
        new_path = change.renamed.get(new_path, new_path)
        if _is_unset(change, new_path, new_value):
            new_value = NONE
    if new_value is not value:
        note(f'{path} = {value!r} is now {new_path} = "{NONE}"')
    elif new_path != path:
        note(f"{path} is now {new_path}")
    return new_path, new_value


def current_settings(settings: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    """`current_setting` for each setting. Raises UserError if a field is given under its old and its new name."""
    current: dict[str, Any] = {}
    for path, value in settings.items():
        if not isinstance(path, str):
            raise UserError(f"settings are named by strings such as 'training.seed', not by {path!r}")
        new_path, new_value = current_setting(path, value, note)
        if new_path in current:
            raise UserError(f"{new_path} is given twice, once under its old name: remove one of them")
        current[new_path] = new_value
    return current
