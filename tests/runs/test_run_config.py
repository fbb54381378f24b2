"""The whole configuration: recipes, overrides, what belongs together, and what a resumed run may change."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import UserError
from glassgpt.runs.config import (
    SECTIONS,
    EvaluationConfig,
    RunConfig,
    TrainingConfig,
    apply_overrides,
    check_resumable,
    config_sections,
    dump_config,
    list_recipes,
    load_config,
    load_recipe,
    may_change,
    parse_run_config,
)
from glassgpt.training.checkpoint_manager import CheckpointConfig


def parse(*overrides: str) -> RunConfig:
    return parse_run_config(apply_overrides(load_recipe("char-tiny"), overrides))


# Recipes


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_whole_and_says_what_it_is(name: str) -> None:
    config = parse_run_config(load_recipe(name))
    assert config.batch_rows * config.model.block_size == config.training.batch_tokens
    assert 0.8 * config.training.max_steps < config.schedule.decay_steps <= config.training.max_steps
    assert config.schedule.warmup_steps < config.training.max_steps
    assert len(list_recipes()[name]["about"]) <= 66  # in a line of `glassgpt recipes`, 80 wide


def test_recipes_come_in_the_order_of_what_they_need() -> None:
    laptop = [
        "bert-tiny", "char-tiny", "finetune", "gpt2-mini", "induction", "llama-tiny", "modern-tiny", "moe-tiny",
        "reverse-tiny", "seq2seq-tiny", "speedrun",
    ]  # fmt: skip
    assert list(list_recipes())[:13] == [*laptop, "char-baby", "gpt2-124m"]


def test_the_classic_cpu_recipe_is_what_it_is_known_for() -> None:
    config = parse()
    assert (config.model.n_layer, config.model.n_head, config.model.n_embd, config.model.block_size) == (4, 4, 128, 64)
    assert (config.batch_rows, config.training.max_steps, config.training.grad_clip) == (12, 2000, 1.0)
    assert (config.optimizer.lr, config.schedule.min_lr, config.optimizer.beta2) == (1e-3, 1e-4, 0.99)
    assert (config.schedule.warmup_steps, config.model.dropout, config.tokenizer.name) == (100, 0.0, "char")


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown recipe 'char-tinny': did you mean 'char-tiny'\?"):
        load_recipe("char-tinny")


def test_a_recipe_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('about = "mine"\nformat = 1\n[model]\nn_layer = 2\n')
    assert load_recipe(str(path)) == {"model": {"n_layer": 2}}
    with pytest.raises(UserError, match=r"cannot read .*gone\.toml"):
        load_recipe(str(tmp_path / "gone.toml"))


@pytest.mark.parametrize("content", ['model = "gpt2"', "max_steps = 100", "training = [1, 2]"])
def test_a_recipe_with_a_value_where_a_section_belongs(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(UserError, match="is not a section: write "):
        load_recipe(str(path))


# From sections to a config and back


architectures = st.sampled_from(["gpt2", "bigram", "decoder"])
trainings = st.fixed_dictionaries(
    {},
    optional={
        "max_steps": st.integers(1, 10**9),
        "micro_batch": st.integers(1, 64) | st.sampled_from(["auto", "none", None]),
        "grad_clip": st.floats(0, 1e6),
        "seed": st.integers(0, (1 << 63) - 1),
        "loss_chunk": st.integers(1, 64) | st.none(),
    },
)
machines = st.fixed_dictionaries(
    {},
    optional={
        "device": st.text(max_size=5),
        "dtype": st.sampled_from(["auto", "float32", "bfloat16"]),
        "compile": st.booleans(),
    },
)


@given(architectures, trainings, machines, st.integers(1, 20), st.floats(1e-4, 1.0), st.text(min_size=1))
@settings(max_examples=30)
def test_a_config_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory,
    architecture: str,
    training: dict[str, Any],
    machine: dict[str, Any],
    rows: int,
    lr: float,
    source: str,
) -> None:
    config = parse_run_config(
        {
            "model": {"architecture": architecture, "block_size": 16},
            "data": {"source": source},
            "tokenizer": {"special_tokens": ["<|endoftext|>", "<|ü|>"]},
            "optimizer": {"lr": lr},
            "training": {**training, "batch_tokens": 16 * rows},
            "machine": machine,
        }
    )
    assert config.batch_rows == rows
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert parse_run_config(config_sections(config)) == config


def test_a_schedule_without_a_length_is_as_long_as_the_run() -> None:
    assert parse("training.max_steps=70").schedule.decay_steps == 70
    assert parse("training.max_steps=70", "schedule.decay_steps=none").schedule.decay_steps == 70
    assert parse("training.max_steps=70", "schedule.decay_steps=50").schedule.decay_steps == 50


def test_a_cooldown_without_a_length_is_a_fifth_of_the_schedule() -> None:
    wsd = "schedule.name=wsd"
    assert parse(wsd, "training.max_steps=70").schedule.cooldown_steps == 14
    assert parse(wsd, "schedule.cooldown_steps=9").schedule.cooldown_steps == 9
    assert parse(wsd, "training.max_steps=3").schedule.cooldown_steps == 1
    assert parse().schedule.cooldown_steps is None


def test_overrides_are_put_into_a_copy() -> None:
    sections = {"model": {"n_head": 4}}
    assert apply_overrides(sections, ["model.n_head=2", "model.n_head=8", "training.seed=3"]) == {
        "model": {"n_head": 8}, "training": {"seed": 3}
    }  # fmt: skip
    assert sections == {"model": {"n_head": 4}}


# Bad input


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modl.n_head=4", r"unknown section 'modl': did you mean 'model'\?"),
        ("model.n_heads=4", r"unknown field 'model\.n_heads': did you mean 'model\.n_head'\?"),
        ("model.n_head=four", r"model\.n_head = 'four': input should be a valid integer"),
        ("model.n_head=3", r"model\.n_embd = 128 is not divisible by model\.n_head = 3: try n_embd = 126 or 129"),
        ("model.architecture=gtp2", r"unknown architecture 'gtp2': did you mean 'gpt2'\?"),
        ("model.architecture=2", "unknown architecture '2'"),
        ("model.dropout=1.0", r"model\.dropout = 1\.0 is out of range"),
        ("optimizer.lr=0", r"optimizer\.lr = 0\.0 is out of range"),
        ("optimizer.name=sgd", r"optimizer\.name = 'sgd': input should be 'adamw'"),
        ("schedule.name=cosin", r"schedule\.name = 'cosin': input should be 'cosine', 'linear', 'constant' or 'wsd'"),
        ("schedule.min_lr=0.1", r"schedule\.min_lr = 0\.1 is above optimizer\.lr = 0\.001"),
        ("training.batch_tokens=100", r"training\.batch_tokens = 100 is not a multiple of model.* try 64"),
        ("training.batch_tokens=10", r"try 64"),
        ("machine.dtype=float8", r"unknown machine\.dtype 'float8': did you mean 'float"),
        ("machine.compile=1", r"machine\.compile = 1: input should be a valid boolean"),
        ("machine.parallel=dpp", r"unknown machine\.parallel 'dpp': did you mean 'ddp'\?"),
        ("training.max_steps=none", r"training\.max_steps = 'none': input should be a valid integer"),
        ("training.micro_batch=false", r"training\.micro_batch = False: input should be a valid integer"),
        ("data.val_fraction=1.5", r"data\.val_fraction"),
        ("tokenizer.name=charr", r"unknown tokenizer 'charr': did you mean 'char'\?"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(override)


NUMBERS = {"training": TrainingConfig, "evaluation": EvaluationConfig, "checkpoint": CheckpointConfig}


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("training", "max_steps", 0), ("training", "batch_tokens", 0), ("training", "micro_batch", 0),
        ("training", "grad_clip", -0.1), ("training", "grad_clip", math.nan), ("training", "grad_clip", math.inf),
        ("training", "seed", -1), ("training", "seed", 1 << 63), ("training", "loss_chunk", 0),
        ("training", "expert_balance", -0.1), ("training", "expert_balance", math.nan),
        ("evaluation", "log_every", 0), ("evaluation", "every", -1), ("evaluation", "tokens", 0),
        ("evaluation", "suite_every", 0), ("evaluation", "suite_limit", 0), ("evaluation", "sample_every", -1),
        ("evaluation", "sample_tokens", 0), ("checkpoint", "every", -1), ("checkpoint", "keep_last", 0),
        ("checkpoint", "snapshots", -1),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(section: str, field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"{section}\.{field} = {value} is out of range"):
        NUMBERS[section](**{field: value})


@pytest.mark.parametrize("section", NUMBERS)
def test_every_number_has_a_range(section: str) -> None:
    """One that is added later must be checked too."""
    for field in dataclasses.fields(NUMBERS[section]):
        if field.type.startswith(("int", "float")):  # type: ignore[union-attr]
            with pytest.raises(UserError, match=rf"{section}\.{field.name} = -1"):
                NUMBERS[section](**{field.name: -1})


def test_a_constant_schedule_has_no_floor() -> None:
    assert parse("schedule.name=constant", "schedule.min_lr=0.1").schedule.min_lr == 0.1


@pytest.mark.parametrize("format_line", ["format = 8\n", "format = 0\n", ""])
def test_a_config_of_another_version_is_refused(tmp_path: Path, format_line: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(format_line + '[model]\narchitecture = "gpt2"\n')
    with pytest.raises(
        UserError, match=r"config\.toml has format (8|0|None), this version of glassgpt reads formats up to 7"
    ):
        load_config(path)


# Validation


@pytest.mark.parametrize(
    ("max_steps", "interval"), [(50, 10), (100, 20), (120, 20), (1000, 100), (1250, 250), (600_000, 250)]
)
def test_a_short_run_validates_often_enough_for_a_curve(max_steps: int, interval: int) -> None:
    """A run of 100 steps validated at steps 0 and 100 only, so its curve was a straight line."""
    config = parse(f"training.max_steps={max_steps}")
    assert (config.validation_interval, config.suite_interval) == (interval, 250)


def test_a_few_steps_do_not_become_many_validations() -> None:
    """One validation of 20,000 tokens costs as much as 8.7 steps of 768."""
    assert parse("training.max_steps=3").validation_interval == 5
    assert parse("training.max_steps=3", "training.batch_tokens=65536").validation_interval == 1


def test_validation_and_suites_follow_what_is_set() -> None:
    config = parse("training.max_steps=100", "evaluation.every=7")
    assert (config.validation_interval, config.suite_interval) == (7, 7)
    config = parse("evaluation.every=0", "evaluation.suite_every=3")
    assert (config.validation_interval, config.suite_interval) == (0, 3)


# Resuming


def test_what_may_change_on_resume_may() -> None:
    check_resumable(parse(), parse("training.max_steps=2000", "schedule.decay_steps=2000"))
    longer = [
        "schedule.decay_steps=2000", "training.max_steps=9000", "machine.device=cuda", "machine.parallel=ddp",
        "machine.activation_checkpointing=true", "evaluation.log_every=3", "evaluation.every=7",
        "evaluation.tokens=9", "evaluation.sample_every=1", "evaluation.sample_tokens=5", "checkpoint.every=2",
        "checkpoint.keep_last=9", "checkpoint.snapshots=0", 'evaluation.suites=["hellaswag"]',
        "evaluation.suite_every=3", "evaluation.suite_limit=4", "evaluation.suite_file=x.jsonl",
        'evaluation.track=["wandb"]', "training.micro_batch=4", "training.loss_chunk=64",
    ]  # fmt: skip
    check_resumable(parse(), parse(*longer))
    changed = {path.partition("=")[0] for path in longer[1:]}
    fields = [(name, field.name) for name, cls in SECTIONS.items() for field in dataclasses.fields(cls)]
    assert changed == {f"{section}.{field}" for section, field in fields if may_change(section, field)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.n_layer=5", r"model\.n_layer was 4 and is now 5"),
        ("model.architecture=decoder", r"model\.architecture was 'gpt2' and is now 'decoder'"),
        ("optimizer.lr=0.5", r"optimizer\.lr was 0\.001 and is now 0\.5"),
        ("schedule.warmup_steps=1", r"schedule\.warmup_steps was 100 and is now 1"),
        ("training.max_steps=3000", r"schedule\.decay_steps was 2000 and is now 3000"),
        ("training.seed=2", r"training\.seed was 1337 and is now 2"),
        ("machine.dtype=float16", r"machine\.dtype was 'auto' and is now 'float16'"),
        ("training.grad_clip=2.0", r"training\.grad_clip was 1\.0 and is now 2\.0"),
        ("machine.compile=true", r"machine\.compile was False and is now True"),
        ("training.batch_tokens=64", r"training\.batch_tokens was 768 and is now 64"),
        ("data.source=b.txt", r"data\.source was 'auto' and is now 'b\.txt'"),
        ("tokenizer.name=bpe", r"tokenizer\.name was 'char' and is now 'bpe'"),
    ],
)
def test_what_may_not_change_is_shown_with_both_values(override: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"cannot resume: .*{message}.*; leave it as it was, or start a new run"):
        check_resumable(parse(), parse(override))
