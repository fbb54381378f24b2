"""Configs of older formats, old names of settings, and configs that are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glassgpt.config import dump_toml
from glassgpt.errors import UserError
from glassgpt.runs.config import (
    RunConfig,
    apply_overrides,
    config_sections,
    dump_config,
    load_config,
    load_recipe,
    parse_run_config,
)
from glassgpt.training.config_formats import CHANGES, FORMAT, current_settings


def parse(*overrides: str) -> RunConfig:
    return parse_run_config(apply_overrides(load_recipe("char-tiny"), overrides))


def as_format(number: int, config: RunConfig) -> dict[str, Any]:
    """The config.toml that the version with that format would have written."""
    flat = {
        f"{section}.{field}": v for section, fields in config_sections(config).items() for field, v in fields.items()
    }
    for newer in range(FORMAT, number, -1):
        change = CHANGES[newer]
        old_names = {new: old for old, new in change.renamed.items()}
        flat = {
            old_names.get(path, path): change.unset[path] if path in change.unset and value == "none" else value
            for path, value in flat.items()
            if path not in change.added
        }
    contents: dict[str, Any] = {"format": number}
    for path, value in flat.items():
        section, _, field = path.partition(".")
        contents.setdefault(section, {})[field] = value
    return contents


SEED_7 = ("training.seed=7", "machine.dtype=float32", "evaluation.every=30", "checkpoint.keep_last=3")


def test_the_second_format_is_the_one_that_was_written() -> None:
    """Literally, as the version before wrote it: else the table and its inverse here could be wrong together."""
    contents = as_format(2, parse(*SEED_7))
    assert contents["training"] == {
        "max_steps": 2000, "batch_tokens": 768, "micro_batch": 0, "grad_clip": 1.0, "seed": 7, "init_from": "",
        "device": "auto", "dtype": "float32", "compile": False, "parallel": "auto", "activation_checkpointing": False,
        "loss_chunk": 0, "overfit_batch": False, "log_every": 10, "eval_every": 30, "eval_tokens": 20_000,
        "eval_suites": [], "eval_suite_every": 0, "eval_suite_limit": 0, "eval_suite_file": "", "sample_every": 250,
        "sample_tokens": 80, "checkpoint_every": 250, "keep_last": 3, "snapshots": 20, "track": [],
    }  # fmt: skip
    assert contents["schedule"]["cooldown_steps"] == 0
    assert contents.keys() == {"format", "model", "data", "tokenizer", "optimizer", "schedule", "training"}


@pytest.mark.parametrize("number", range(1, FORMAT))
def test_a_config_of_an_older_format_means_what_it_meant(tmp_path: Path, number: int) -> None:
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(as_format(number, parse(*SEED_7))))
    assert load_config(path) == parse(*SEED_7)


def test_a_new_field_has_a_format() -> None:
    """Else the runs of the version before cannot be opened: CHANGES has the value that they used."""
    fields = {section: sorted(fields) for section, fields in config_sections(parse()).items() if section != "model"}
    assert FORMAT == 7
    assert fields == {
        "run": ["init_from", "stage"],
        "data": ["document_mask", "mask_fraction", "pairs", "source", "val_fraction"],
        "tokenizer": ["name", "pattern", "special_tokens", "vocab_size"],
        "optimizer": ["beta1", "beta2", "embedding_lr", "eps", "lr", "momentum", "name", "weight_decay"],
        "schedule": ["cooldown_steps", "decay_steps", "min_lr", "name", "replanned", "warmup_steps"],
        "training": [
            "batch_tokens", "expert_balance", "grad_clip", "loss_chunk", "max_steps", "micro_batch", "minutes",
            "overfit_batch", "seed",
        ],
        "machine": ["activation_checkpointing", "compile", "device", "dtype", "parallel"],
        "evaluation": [
            "every", "log_every", "sample_every", "sample_tokens", "suite_every", "suite_file", "suite_limit", "suites",
            "tokens", "track",
        ],
        "checkpoint": ["every", "keep_last", "snapshots"],
    }  # fmt: skip


def test_a_field_that_an_older_format_had_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(as_format(1, parse()) | {"format": 2}))
    with pytest.raises(UserError, match=r"(data\.document_mask|run\.init_from) is missing"):
        load_config(path)


@pytest.mark.parametrize(
    ("files", "stage"),
    [
        ((), "pretrain"),
        (("data.json",), "pretrain"),
        (("origin.json", "data.json"), "pretrain"),
        (("origin.json",), "none"),
    ],
)
def test_the_stage_of_an_older_run_is_told_by_its_files(tmp_path: Path, files: tuple[str, ...], stage: str) -> None:
    for file in files:
        (tmp_path / file).touch()
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(as_format(2, parse())))
    assert load_config(path).run.stage == stage
    path.write_text(dump_config(parse()))
    assert load_config(path).run.stage == "pretrain"  # today the config alone says it


def test_old_names_in_a_recipe_are_understood_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[training]\nmax_steps = 9\neval_every = 7\nmicro_batch = 0\ntrack = ["wandb"]\neval_suite_limit = 0\n'
    )
    notes: list[str] = []
    assert load_recipe(str(path), notes.append) == {
        "training": {"max_steps": 9, "micro_batch": "none"},
        "evaluation": {"every": 7, "track": ["wandb"], "suite_limit": "none"},
    }
    assert notes == [
        "training.eval_every is now evaluation.every",
        'training.micro_batch = 0 is now training.micro_batch = "none"',
        "training.track is now evaluation.track",
        'training.eval_suite_limit = 0 is now evaluation.suite_limit = "none"',
    ]


def test_old_names_in_overrides_are_understood_with_a_note() -> None:
    notes: list[str] = []
    overrides = ["training.seed=3", "training.checkpoint_every=5", "checkpoint.every=6", "schedule.cooldown_steps=0"]
    assert apply_overrides({}, overrides, notes.append) == {
        "training": {"seed": 3}, "checkpoint": {"every": 6}, "schedule": {"cooldown_steps": "none"}
    }  # fmt: skip
    assert notes == [
        "training.checkpoint_every is now checkpoint.every",
        'schedule.cooldown_steps = 0 is now schedule.cooldown_steps = "none"',
    ]


def test_a_field_under_both_of_its_names_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluation\.every is given twice, once under its old name"):
        current_settings({"training.eval_every": 1, "evaluation.every": 2}, lambda line: None)


def test_a_setting_without_a_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"settings are named by strings such as 'training\.seed', not by 5"):
        current_settings({5: 1}, print)  # type: ignore[dict-item]


def test_every_new_name_is_a_field() -> None:
    fields = {f"{section}.{field}" for section, values in config_sections(parse()).items() for field in values}
    renamed = {old: new for change in CHANGES.values() for old, new in change.renamed.items()}
    for change in CHANGES.values():
        assert fields >= {renamed.get(path, path) for path in change.added}
        assert fields >= {*change.renamed.values(), *change.unset}
        assert not fields & change.renamed.keys()


@pytest.mark.parametrize("damage", ["training = 3", "[model]\nn_haed = 2", "model = 3", "[model", "[odd]\na = 1"])
def test_a_damaged_config_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"format = 2\n{damage}\n")
    with pytest.raises(UserError, match=r"config\.toml"):
        load_config(path)


@pytest.mark.parametrize(
    "text",
    ['format = 3\n[model]\narchitecture = "gpt2"\n', "format = 1.0\n", "format = true\n", "format = 3\nrun = 5\n"],
)
def test_a_damaged_config_has_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UserError, match=r"config\.toml"):
        load_config(tmp_path / "config.toml")
