"""The command line: what it lists, and which verbs change the process they run in."""

from __future__ import annotations

import json
from unittest import mock

import pytest
from command_line import glassgpt

from glassgpt.cli import main


def test_recipes_for_a_laptop_are_listed_first_in_80_columns() -> None:
    lines = glassgpt("recipes").out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "laptop" in lines[0] and lines[2].split()[0] == "char-tiny"
    assert "GPUs" in lines[14] and lines[-1].split()[0] == "gpt3-175b"
    as_json = json.loads(glassgpt("recipes", "--json").out)
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(as_json)
    assert as_json["char-tiny"]["needs"] == "laptop" and as_json["char-tiny"]["model"]["n_layer"] == 4


@pytest.mark.parametrize(("verb", "computes"), [("train", True), ("recipes", False)])
def test_only_a_verb_that_computes_keeps_freed_memory(verb: str, computes: bool) -> None:
    with mock.patch.object(main, "keep_freed_memory") as keep:
        glassgpt(verb, *(["no-such-recipe"] if computes else []))
    assert keep.called == computes


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--lr", "did you mean --set optimizer.lr=…?"),
        ("--n_layer", "did you mean --set model.n_layer=…?"),
        ("--n-layers", "did you mean --set model.n_layer=…?"),
        ("--optimizer.lr", "did you mean --set optimizer.lr=…?"),
        ("--every", "did you mean --set evaluation.every=… or --set checkpoint.every=…?"),
        ("--grad-clip=1", "did you mean --set training.grad_clip=…?"),
        ("--max-step", "did you mean --max-steps?"),  # the verb's own option comes first
    ],
)
def test_an_unknown_option_that_is_a_field_is_set_with_set(option: str, hint: str) -> None:
    error = glassgpt("train", option, "3").error
    assert error == f"No such option: {option.partition('=')[0]}; {hint} (see glassgpt train --help)"


def test_an_option_like_no_other_has_no_suggestion() -> None:
    assert glassgpt("train", "--bogus").error == "No such option: --bogus (see glassgpt train --help)"
    assert glassgpt("sample", "--lr", 3).error == "No such option: --lr (see glassgpt sample --help)"


def test_an_error_is_one_line_whatever_a_library_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main.fail("cannot read a.csv: unexpected end\n  of file at line 3\n")
    assert capsys.readouterr().err == "glassgpt: cannot read a.csv: unexpected end of file at line 3\n"
