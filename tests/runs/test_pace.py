"""A run that has to end in time: how many steps still fit, by a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.runs.pace import LOOKS, TOLERANCE, Pace


class Clock:
    """Shows the seconds that the test has let pass."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def train(
    planned: int, seconds: float, step_seconds: list[float], most: int | None = None
) -> tuple[int, float, list[tuple[int, int]]]:
    """Runs steps that take `step_seconds`, the last of them over and over: (steps, seconds, changes of the plan)."""
    clock = Clock()
    pace = Pace(seconds, clock.now + seconds, most, clock)
    pace.start()
    steps, step, changes = planned, 0, []
    while step < steps:
        clock.now += step_seconds[min(step, len(step_seconds) - 1)]
        step += 1
        if pace.is_due(step, steps):
            found = pace.look(step, steps)
            pace.looked(step)
            if found != steps:
                changes.append((step, found))
                steps = found
    return step, clock.now - 100.0, changes


def test_a_plan_that_holds_is_kept() -> None:
    assert train(100, 10.0, [0.1]) == (100, pytest.approx(10.0), [])
    assert train(100, 10.0, [0.1 * (1 + TOLERANCE / 2)])[2] == []


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.8, 1.3, 2.0, 4.0])
def test_a_slower_or_faster_machine_ends_in_time_too(factor: float) -> None:
    steps, seconds, changes = train(200, 20.0, [0.1 * factor])
    assert seconds == pytest.approx(20.0, rel=0.05)
    assert steps == pytest.approx(200 / factor, rel=0.05)
    assert changes


@given(st.lists(st.floats(0.05, 0.2), min_size=1, max_size=300))
def test_it_ends_in_time_whatever_the_steps_take(step_seconds: list[float]) -> None:
    _, seconds, changes = train(200, 20.0, step_seconds)
    assert seconds == pytest.approx(20.0, rel=0.15)
    assert len(changes) <= 4 * LOOKS
    assert all(step < end for step, end in changes)
    assert [step for step, _ in changes] == sorted({step for step, _ in changes})


def test_a_machine_that_slept_ends_at_the_next_step() -> None:
    steps, _, changes = train(100, 10.0, [0.1] * 30 + [3600.0, 0.1])
    assert changes[-1][1] == steps
    assert steps <= 50


def test_a_short_text_is_not_read_more_often_because_there_is_time() -> None:
    assert train(100, 100.0, [0.1], most=100) == (100, pytest.approx(10.0), [])
    assert train(100, 100.0, [0.1], most=150)[0] == 150
