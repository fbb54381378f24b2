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
    assert "laptop" in lines[0] and lines[1].split()[0] == "char-tiny"
    assert "GPUs" in lines[6] and lines[-1].split()[0] == "gpt3-175b"
    as_json = json.loads(glassgpt("recipes", "--json").out)
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(as_json)
    assert as_json["char-tiny"]["needs"] == "laptop" and as_json["char-tiny"]["model"]["n_layer"] == 4


@pytest.mark.parametrize(("verb", "computes"), [("train", True), ("recipes", False)])
def test_only_a_verb_that_computes_keeps_freed_memory(verb: str, computes: bool) -> None:
    with mock.patch.object(main, "keep_freed_memory") as keep:
        glassgpt(verb, *(["no-such-recipe"] if computes else []))
    assert keep.called == computes
