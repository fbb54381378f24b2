"""The number of logits, which the tokenizer decides, and the padding of the embedding."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassgpt.config import dump_toml
from glassgpt.errors import UserError
from glassgpt.models.sizes import embedding_rows
from glassgpt.runs.config import (
    RunConfig,
    apply_overrides,
    config_sections,
    load_config,
    load_recipe,
    migrate_vocab,
    parse_run_config,
    with_settings,
    with_vocab_size,
)
from glassgpt.tokenizers.char import CharTokenizer


def parse(*overrides: str) -> RunConfig:
    return parse_run_config(apply_overrides(load_recipe("char-tiny"), overrides))


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


def test_a_recipe_may_say_both_in_any_order(tmp_path: Path) -> None:
    for lines in (["vocab_size = 60", "padded_vocab_size = 64"], ["padded_vocab_size = 64", "vocab_size = 60"]):
        path = tmp_path / "mine.toml"
        path.write_text("\n".join(["[model]", *lines]))
        assert load_recipe(str(path))["model"] == {"vocab_size": 60, "padded_vocab_size": 64}


@pytest.mark.parametrize("order", [1, -1])
def test_padding_that_is_given_stays_in_any_order(order: int) -> None:
    given = ["model.padded_vocab_size=64", "model.vocab_size=28"][::order]
    assert apply_overrides({"model": {"padded_vocab_size": 128}}, given)["model"] == {
        "padded_vocab_size": 64, "vocab_size": 28,
    }  # fmt: skip
    assert apply_overrides({"model": {"padded_vocab_size": 128}}, given[::-1][:1] if order > 0 else given[:1])[
        "model"
    ] == {"vocab_size": 28}


def test_none_and_its_word_mean_the_same() -> None:
    for nothing in (None, "none"):
        sections = with_settings({"model": {"vocab_size": 64}}, {"model.padded_vocab_size": nothing})
        sections, note = with_vocab_size(sections, 28)
        assert sections["model"] == {"vocab_size": 64, "padded_vocab_size": "none"} and note is None
