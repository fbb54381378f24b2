"""The experiment of the page on a scaling law finds the law that its points were made of."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "docs" / "course" / "experiments"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))  # it imports lab.py beside it
    return runpy.run_path(str(EXPERIMENTS / "scaling_law.py"))


def test_the_fit_finds_the_law_that_the_points_were_made_of(script: dict[str, Any]) -> None:
    law = script["Law"](E=1.4, A=30.0, alpha=0.45, B=90.0, beta=0.4)
    points = [(N, D) for N in (1e4, 3e4, 1e5) for D in (1e5, 3e5, 1e6)]
    results = [script["Result"]("", N, D, 6 * N * D, law.loss(N, D), 0.0) for N, D in points]
    fitted = script["fit_law"](results)
    for name in ("E", "A", "alpha", "B", "beta"):
        assert getattr(fitted, name) == pytest.approx(getattr(law, name), rel=1e-6)


def test_losses_that_rise_with_size_and_text_are_refused(script: dict[str, Any]) -> None:
    points = [(N, D) for N in (1e4, 3e4, 1e5) for D in (1e5, 3e5, 1e6)]
    results = [script["Result"]("", N, D, 6 * N * D, np.log(N * D), 0.0) for N, D in points]
    with pytest.raises(SystemExit, match="has to fall"):
        script["fit_law"](results)


def test_no_other_size_has_a_lower_loss_for_the_same_compute(script: dict[str, Any]) -> None:
    law, compute = script["Law"](E=1.4, A=30.0, alpha=0.45, B=90.0, beta=0.4), 1e11
    best = law.best_size(compute)
    sizes = best * np.geomspace(0.1, 10, 201)
    assert law.loss(best, compute / (6 * best)) <= law.loss(sizes, compute / (6 * sizes)).min() + 1e-12
