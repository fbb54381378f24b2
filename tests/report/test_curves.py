"""Curves that are thinned and smoothed say what the measurements say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.report.curves import Axes, listed, smooth, thin
from glassgpt.report.run_record import RunRecord

values = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60)


def empty_record(train: list[dict[str, float]]) -> RunRecord:
    return RunRecord("run", {}, {}, {}, train, [], [], None, [])


@given(values, st.integers(0, 8))
@settings(max_examples=60)
def test_smooth_is_the_mean_of_the_finite_values_in_reach(y: list[float], half_width: int) -> None:
    smoothed = smooth(np.array(y), half_width)
    for i, mean in enumerate(smoothed):
        reach = min(half_width, i)
        near = [value for value in y[i - reach : i + reach + 1] if math.isfinite(value)]
        if near:
            assert mean == pytest.approx(sum(near) / len(near), rel=1e-6, abs=1e-4)
        else:
            assert math.isnan(mean)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5000))
@settings(max_examples=30)
def test_thinning_keeps_both_ends_and_every_record(seed: int, n: int) -> None:
    y = np.random.default_rng(seed).normal(size=n)
    kept = thin(y, max_points=200)
    assert len(kept) <= 200
    assert len(set(kept.tolist())) == len(kept)
    assert (np.diff(kept) > 0).all()
    assert {0, n - 1, int(y.argmin()), int(y.argmax())} <= set(kept.tolist())


def test_a_spike_of_one_step_survives_thinning() -> None:
    y = np.zeros(100_000)
    y[54_321] = 50.0
    assert 54_321 in thin(y)


def test_thinning_is_fine_at_the_start_too() -> None:
    kept = thin(np.random.default_rng(0).normal(size=100_000))
    assert (
        kept < 1000
    ).sum() > 100  # a logarithmic axis gives the first hundredth of a run more than half of its length


def test_stretches_without_a_number_are_skipped() -> None:
    y = np.full(5000, np.nan)
    y[10] = 1.0
    assert set(thin(y, max_points=100).tolist()) == {0, 10, 4999}


def test_axes_interpolate_what_validation_lines_do_not_say() -> None:
    axes = Axes(empty_record([{"step": 10, "tokens_seen": 1000}, {"step": 20, "tokens_seen": 3000}]))
    assert axes(np.array([0.0, 5.0, 15.0, 20.0])) == {"step": [0, 5, 15, 20], "tokens": [0, 500, 2000, 3000]}


def test_late_steps_of_a_long_run_stay_apart_on_every_axis() -> None:
    """Two points with one x would be drawn as one."""
    steps = range(99_000, 100_001)
    axes = Axes(empty_record([{"step": s, "tokens_seen": 524_288 * s, "seconds": 0.31 * s} for s in steps]))
    for values in axes(np.array(steps, dtype=np.float64)).values():
        assert len(set(values)) == len(steps)


def test_whole_numbers_are_written_short() -> None:
    assert str(listed(np.array([20.0, 0.5, math.nan, 123_456.0]))) == "[20, 0.5, None, 123460]"
