"""Recipes of the package, and two sections of the ladder, are in good health on a real text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glassgpt.doctor.diagnosis import diagnose

TEXT = Path(os.environ.get("GLASSGPT_TEST_DATA", "test-data-not-given")).absolute() / "tinyshakespeare.txt"
LADDER = ["optimizer.lr=1e-2", "training.batch_tokens=1024"]


@pytest.mark.slow
@pytest.mark.skipif(not TEXT.exists(), reason="needs test data: set GLASSGPT_TEST_DATA")
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("char-tiny", []),
        ("gpt2-mini", []),
        ("char-baby", ["model.n_layer=2"]),  # a third of its depth
        ("char-tiny", ["model.architecture=multihead", *LADDER]),
        ("char-tiny", ["model.architecture=layernorm", *LADDER]),
    ],
)
def test_a_healthy_recipe_passes(recipe: str, overrides: list[str]) -> None:
    diagnosis = diagnose(recipe, overrides=overrides, settings={"data.source": str(TEXT), "machine.device": "cpu"})
    assert [finding for finding in diagnosis.findings if finding.status != "passed"] == []
