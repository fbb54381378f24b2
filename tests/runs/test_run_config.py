"""The whole configuration: recipes, overrides, what belongs together, and what a resumed run may change."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.config import dump_toml, read_toml
from glassgpt.errors import UserError
from glassgpt.models.sizes import embedding_rows
from glassgpt.runs.config import (
    ADDED,
    CHANGEABLE,
    RunConfig,
    TrainingConfig,
    apply_overrides,
    check_resumable,
    config_sections,
    dump_config,
    list_recipes,
    load_config,
    load_recipe,
    migrate_vocab,
    parse_run_config,
    with_vocab_size,
)
from glassgpt.tokenizers.char import CharTokenizer


def parse(*overrides: str) -> RunConfig:
    return parse_run_config(apply_overrides(load_recipe("char-tiny"), overrides))


# Recipes


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_whole_and_says_what_it_is(name: str) -> None:
    config = parse_run_config(load_recipe(name))
    assert config.batch_rows * config.model.block_size == config.training.batch_tokens
    assert 0.8 * config.training.max_steps < config.schedule.decay_steps <= config.training.max_steps
    assert config.schedule.warmup_steps < config.training.max_steps
    assert len(read_toml(list_recipes()[name])["about"]) < 80


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
        "micro_batch": st.integers(0, 64),
        "grad_clip": st.floats(0, 1e6),
        "seed": st.integers(0, (1 << 63) - 1),
        "device": st.text(max_size=5),
        "dtype": st.sampled_from(["auto", "float32", "bfloat16"]),
        "compile": st.booleans(),
        "eval_every": st.integers(0, 1000),
    },
)


@given(architectures, trainings, st.integers(1, 20), st.floats(1e-4, 1.0), st.text(min_size=1))
@settings(max_examples=30)
def test_a_config_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory,
    architecture: str,
    training: dict[str, Any],
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
        }
    )
    assert config.batch_rows == rows
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert parse_run_config(config_sections(config)) == config


def test_a_schedule_without_a_length_is_as_long_as_the_run() -> None:
    assert parse("training.max_steps=70").schedule.decay_steps == 70
    assert parse("training.max_steps=70", "schedule.decay_steps=50").schedule.decay_steps == 50


def test_a_cooldown_without_a_length_is_a_fifth_of_the_schedule() -> None:
    wsd = "schedule.name=wsd"
    assert parse(wsd, "training.max_steps=70").schedule.cooldown_steps == 14
    assert parse(wsd, "schedule.cooldown_steps=9").schedule.cooldown_steps == 9
    assert parse(wsd, "training.max_steps=3").schedule.cooldown_steps == 1
    assert parse().schedule.cooldown_steps == 0


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
        ("schedule.name=cosin", r"schedule\.name = 'cosin': input should be 'cosine', 'constant' or 'wsd'"),
        ("schedule.min_lr=0.1", r"schedule\.min_lr = 0\.1 is above optimizer\.lr = 0\.001"),
        ("training.batch_tokens=100", r"training\.batch_tokens = 100 is not a whole number of rows .* try 64"),
        ("training.batch_tokens=10", r"try 64"),
        ("training.dtype=float8", r"unknown dtype 'float8': did you mean 'float"),
        ("training.compile=1", r"training\.compile = 1: input should be a valid boolean"),
        ("data.val_fraction=1.5", r"data\.val_fraction"),
        ("tokenizer.name=charr", r"unknown tokenizer 'charr': did you mean 'char'\?"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(override)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_steps", 0), ("batch_tokens", 0), ("micro_batch", -1), ("grad_clip", -0.1), ("grad_clip", math.nan),
        ("grad_clip", math.inf), ("seed", -1), ("seed", 1 << 63), ("log_every", 0), ("eval_every", -1),
        ("eval_tokens", 0), ("sample_every", -1), ("sample_tokens", 0), ("checkpoint_every", -1), ("keep_last", 0),
        ("snapshots", -1),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"training\.{field} = {value} is out of range"):
        TrainingConfig(**{field: value})  # type: ignore[arg-type]


def test_every_number_of_training_has_a_range() -> None:
    """One that is added later must be checked too."""
    for field in dataclasses.fields(TrainingConfig):
        if field.type in ("int", "float"):
            with pytest.raises(UserError, match=rf"training\.{field.name} = -1"):
                TrainingConfig(**{field.name: -1})  # type: ignore[arg-type]


def test_a_constant_schedule_has_no_floor() -> None:
    assert parse("schedule.name=constant", "schedule.min_lr=0.1").schedule.min_lr == 0.1


@pytest.mark.parametrize("format_line", ["format = 3\n", "format = 0\n", ""])
def test_a_config_of_another_version_is_refused(tmp_path: Path, format_line: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(format_line + '[model]\narchitecture = "gpt2"\n')
    with pytest.raises(
        UserError, match=r"config\.toml has format (3|0|None), this version of glassgpt reads formats up to 2"
    ):
        load_config(path)


def test_a_config_of_the_format_before_means_what_it_meant(tmp_path: Path) -> None:
    sections = config_sections(parse("training.seed=7"))
    for section, fields in ADDED[2].items():
        for field in fields:
            del sections[section][field]
    path = tmp_path / "config.toml"
    path.write_text(dump_toml({"format": 1, **sections}))
    assert load_config(path) == parse("training.seed=7")
    path.write_text(dump_toml({"format": 2, **sections}))
    with pytest.raises(UserError, match=r"damaged: it has no data\.document_mask"):
        load_config(path)


@pytest.mark.parametrize("damage", ["training = 3", "[model]\nn_haed = 2", "model = 3", "[model", "[odd]\na = 1"])
def test_a_damaged_config_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"format = 2\n{damage}\n")
    with pytest.raises(UserError, match=r"config\.toml"):
        load_config(path)


# Resuming


def test_what_may_change_on_resume_may() -> None:
    check_resumable(parse(), parse("training.max_steps=2000", "schedule.decay_steps=2000"))
    longer = [
        "schedule.decay_steps=2000", "training.max_steps=9000", "training.device=cuda", "training.parallel=ddp",
        "training.activation_checkpointing=true", "training.log_every=3", "training.eval_every=7",
        "training.eval_tokens=9", "training.sample_every=1",
        "training.sample_tokens=5", "training.checkpoint_every=2", "training.keep_last=9", "training.snapshots=0",
        'training.eval_suites=["hellaswag"]', "training.eval_suite_every=3", "training.eval_suite_limit=4",
        "training.eval_suite_file=x.jsonl", 'training.track=["wandb"]',
    ]  # fmt: skip
    check_resumable(parse(), parse(*longer))
    assert {path.partition("=")[0] for path in longer[1:]} == CHANGEABLE


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.n_layer=5", r"model\.n_layer was 4 and is now 5"),
        ("model.architecture=decoder", r"model\.architecture was 'gpt2' and is now 'decoder'"),
        ("optimizer.lr=0.5", r"optimizer\.lr was 0\.001 and is now 0\.5"),
        ("schedule.warmup_steps=1", r"schedule\.warmup_steps was 100 and is now 1"),
        ("training.max_steps=3000", r"schedule\.decay_steps was 2000 and is now 3000"),
        ("training.seed=2", r"training\.seed was 1337 and is now 2"),
        ("training.dtype=float16", r"training\.dtype was 'auto' and is now 'float16'"),
        ("training.batch_tokens=64", r"training\.batch_tokens was 768 and is now 64"),
        ("data.source=b.txt", r"data\.source was 'auto' and is now 'b\.txt'"),
        ("tokenizer.name=bpe", r"tokenizer\.name was 'char' and is now 'bpe'"),
    ],
)
def test_what_may_not_change_is_shown_with_both_values(override: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"cannot resume: .*{message}.*; leave it as it was, or start a new run"):
        check_resumable(parse(), parse(override))


def test_every_changeable_field_exists() -> None:
    sections = config_sections(parse())
    assert {f"{section}.{field}" for section, fields in sections.items() for field in fields} >= CHANGEABLE


# The vocabulary, and its padding


@pytest.mark.parametrize(
    ("section", "n_ids", "expected"),
    [
        ({"vocab_size": 512}, 500, {"vocab_size": 500, "padded_vocab_size": 512}),
        ({"vocab_size": 500}, 500, {"vocab_size": 500, "padded_vocab_size": "none"}),
        ({"vocab_size": 512}, None, {"vocab_size": 512, "padded_vocab_size": "none"}),  # an import
        ({}, 500, {"padded_vocab_size": "none"}),  # damaged, which is said later
    ],
)
def test_an_older_vocab_size_counted_the_padding(
    section: dict[str, int], n_ids: int | None, expected: dict[str, object]
) -> None:
    assert migrate_vocab({"n_embd": 8, **section}, n_ids) == {"n_embd": 8, **expected}


@pytest.mark.parametrize("imported", [False, True])
def test_an_older_run_is_padded_unless_it_was_imported(tmp_path: Path, imported: bool) -> None:
    sections = config_sections(parse("model.vocab_size=64"))
    del sections["model"]["padded_vocab_size"]
    (tmp_path / "config.toml").write_text(dump_toml({"format": 2, **sections}))
    CharTokenizer.train("abcd").save(tmp_path / "tokenizer.json")
    (tmp_path / ("origin.json" if imported else "data.json")).write_text("{}")
    model = load_config(tmp_path / "config.toml").model
    assert (model.vocab_size, embedding_rows(model)) == ((64, 64) if imported else (4, 64))


@pytest.mark.parametrize(
    ("model", "expected", "noted"),
    [
        ({}, (50, None), False),
        ({"padded_vocab_size": 64}, (50, 64), False),
        ({"vocab_size": 64}, (50, 64), True),  # an older recipe
        ({"vocab_size": 50}, (50, None), False),
        ({"vocab_size": 64, "padded_vocab_size": "none"}, (64, None), False),  # imported
        ({"vocab_size": 60, "padded_vocab_size": 64}, (50, 60), True),
        ({"vocab_size": 64, "architecture": "bigram"}, (64, None), False),  # has no padding
    ],
)
def test_the_tokenizer_decides_the_vocabulary(
    model: dict[str, object], expected: tuple[int, int | None], noted: bool
) -> None:
    sections, note = with_vocab_size({"model": {"block_size": 64, **model}}, 50)
    config = parse_run_config(sections).model
    assert (config.vocab_size, getattr(config, "padded_vocab_size", None)) == expected
    assert (note is not None) == noted
    if noted:
        rows = model["vocab_size"]
        assert note == f"model.vocab_size = {rows} is read as model.padded_vocab_size: the tokenizer has 50 ids"


def test_a_vocab_size_takes_the_place_of_a_recipes_padding() -> None:
    sections = apply_overrides({"model": {"padded_vocab_size": 4096}}, ["model.vocab_size=512"])
    assert sections == {"model": {"vocab_size": 512}}


def test_an_architecture_without_padding_leaves_the_recipes_out() -> None:
    config = parse_run_config(apply_overrides(load_recipe("gpt2-mini"), ["model.architecture=decoder"]))
    assert not hasattr(config.model, "padded_vocab_size")


def test_no_padding_is_written_and_read_as_none() -> None:
    assert config_sections(parse())["model"]["padded_vocab_size"] == "none"
    assert parse("model.padded_vocab_size=none") == parse()
    with pytest.raises(UserError, match=r"model\.padded_vocab_size = 'nil'"):
        parse("model.padded_vocab_size=nil")
