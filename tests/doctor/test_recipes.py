"""Recipes of the package, and two sections of the ladder, are in good health on a real text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from glassgpt.doctor.diagnosis import diagnose

LADDER = ["optimizer.lr=1e-2", "training.batch_tokens=1024"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("char-tiny", []),
        ("gpt2-mini", []),
        ("char-baby", ["model.n_layer=2"]),  # a third of its depth
        ("llama-tiny", []),
        ("moe-tiny", []),
        ("bert-tiny", []),
        ("reverse-tiny", []),
        ("seq2seq-tiny", []),
        ("char-tiny", ["model.architecture=multihead", *LADDER]),
        ("char-tiny", ["model.architecture=layernorm", *LADDER]),
    ],
)
def test_a_healthy_recipe_passes(recipe: str, overrides: list[str], test_data: Callable[[str], Path]) -> None:
    settings = {"data.source": str(test_data("tinyshakespeare.txt")), "machine.device": "cpu"}
    diagnosis = diagnose(recipe, overrides=overrides, settings=settings)
    assert [finding for finding in diagnosis.findings if finding.status != "passed"] == []
