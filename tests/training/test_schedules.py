"""Learning rates against closed values, and against the schedulers of torch and transformers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.errors import UserError
from glassgpt.training.schedules import ScheduleConfig, learning_rate, place_in_plan

PEAK, FLOOR = 3e-3, 2e-4


def rates(n_steps: int, **fields: Any) -> list[float]:
    config = ScheduleConfig(**{"min_lr": FLOOR, **fields})
    return [learning_rate(step, PEAK, config) for step in range(n_steps)]


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "wsd"])
def test_warm_up_rises_in_equal_parts_to_the_peak(name: str) -> None:
    got = rates(10, name=name, warmup_steps=10, decay_steps=100, cooldown_steps=20)
    assert got == pytest.approx([PEAK * part / 10 for part in range(1, 11)])


def test_cosine_at_its_quarters() -> None:
    got = rates(141, name="cosine", warmup_steps=20, decay_steps=120)
    expected = {
        20: PEAK,
        45: FLOOR + (PEAK - FLOOR) * (1 + math.sqrt(0.5)) / 2,
        70: (PEAK + FLOOR) / 2,
        95: FLOOR + (PEAK - FLOOR) * (1 - math.sqrt(0.5)) / 2,
        120: FLOOR,
        140: FLOOR,
    }
    assert {step: got[step] for step in expected} == pytest.approx(expected)


def test_constant_stays_at_the_peak() -> None:
    assert set(rates(1000, name="constant", warmup_steps=5, decay_steps=10)[5:]) == {PEAK}


def test_wsd_is_stable_and_then_falls_in_a_straight_line() -> None:
    got = rates(110, name="wsd", warmup_steps=10, decay_steps=100, cooldown_steps=40)
    assert set(got[9:61]) == {PEAK}
    assert got[60:101] == pytest.approx([PEAK + (FLOOR - PEAK) * part / 40 for part in range(41)])
    assert set(got[100:]) == {FLOOR}


def test_wsd_without_a_cooldown_decays_over_the_last_fifth() -> None:
    given = rates(60, name="wsd", warmup_steps=10, decay_steps=50, cooldown_steps=10)
    assert rates(60, name="wsd", warmup_steps=10, decay_steps=50, cooldown_steps=None) == given
    assert given[40] == PEAK > given[41] > given[49] > given[50] == FLOOR


def test_linear_falls_in_a_straight_line_to_the_minimum() -> None:
    got = rates(110, name="linear", warmup_steps=10, decay_steps=100, cooldown_steps=20)
    assert got[10:101] == pytest.approx([PEAK + (FLOOR - PEAK) * part / 90 for part in range(91)])
    assert set(got[100:]) == {FLOOR}
    assert rates(5, name="linear", warmup_steps=0, decay_steps=4)[0] == PEAK


def test_cosine_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=PEAK)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200, eta_min=FLOOR)
    for ours in rates(200, name="cosine", warmup_steps=0, decay_steps=200):
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("name", ["cosine", "wsd"])
def test_after_warm_up_it_equals_transformers(name: str) -> None:
    """During warm-up theirs begins at 0, ours at the first part of the peak: a step that changes nothing is no step."""
    optimization = pytest.importorskip("transformers.optimization")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=PEAK)
    ratio = FLOOR / PEAK
    if name == "cosine":
        theirs = optimization.get_cosine_with_min_lr_schedule_with_warmup(optimizer, 20, 150, min_lr_rate=ratio)
    else:
        theirs = optimization.get_wsd_schedule(
            optimizer, 20, 50, num_stable_steps=80, decay_type="linear", min_lr_ratio=ratio
        )
    for step, ours in enumerate(rates(151, name=name, warmup_steps=20, decay_steps=150, cooldown_steps=50)):
        if step >= 20:
            assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-9), step
        optimizer.step()
        theirs.step()


@given(
    st.sampled_from(["cosine", "linear", "constant", "wsd"]),
    st.integers(0, 50),
    st.integers(1, 50),
    st.integers(1, 50),
    st.floats(0, 1),
)
def test_it_rises_once_falls_once_and_stays_between_floor_and_peak(
    name: str, warmup: int, decay: int, cooldown: int, floor: float
) -> None:
    got = rates(60, name=name, warmup_steps=warmup, decay_steps=decay, cooldown_steps=cooldown, min_lr=floor * PEAK)
    top = got.index(max(got))
    assert max(got) <= PEAK * (1 + 1e-12)
    assert got[:top] == sorted(got[:top])
    assert got[top:] == sorted(got[top:], reverse=True)
    assert all(rate >= floor * PEAK for rate in got[warmup:])


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
def test_a_schedule_that_decays_needs_its_length(name: str) -> None:
    with pytest.raises(UserError, match=rf"schedule\.decay_steps is not set: a {name} schedule needs a number"):
        rates(20, name=name, warmup_steps=10)
    assert rates(20, name="constant", warmup_steps=10)[-1] == PEAK


@pytest.mark.parametrize("field", ["warmup_steps", "decay_steps", "cooldown_steps", "min_lr"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_value_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"schedule\.{field} = {value} is out of range"):
        ScheduleConfig(**{field: value})


@given(
    st.sampled_from(["cosine", "linear", "wsd"]),
    st.lists(st.tuples(st.floats(0.01, 0.99), st.integers(1, 80)), max_size=4),
)
def test_a_changed_plan_spreads_the_rest_over_the_steps_that_are_left(
    name: str, changes: list[tuple[float, int]]
) -> None:
    replanned: list[tuple[int, int]] = []
    step, planned = 0, 300
    for share, left in changes:  # always before the end that was planned last
        if step + 1 < planned:
            step += max(1, int(share * (planned - step)))
            planned = step + left
            replanned.append((step, planned))
    config = ScheduleConfig(name=name, warmup_steps=5, decay_steps=300, min_lr=FLOOR, replanned=tuple(replanned))
    end = config.end
    assert end is not None
    places = [place_in_plan(step, config) for step in range(end + 20)]
    assert places == sorted(places)
    assert places[end] == pytest.approx(300)
    for step, _ in replanned:  # what was done before a change stays as it was
        before = ScheduleConfig(**{**vars(config), "replanned": tuple(pair for pair in replanned if pair[0] < step)})
        assert places[: step + 1] == [place_in_plan(earlier, before) for earlier in range(step + 1)]
    assert learning_rate(end, PEAK, config) == pytest.approx(FLOOR)


def test_a_plan_cut_in_half_falls_twice_as_fast() -> None:
    config = {"name": "linear", "warmup_steps": 0, "decay_steps": 100, "min_lr": 0.0, "replanned": ((50, 75),)}
    got = rates(80, **config)
    assert got[:51] == rates(51, **{**config, "replanned": ()})
    assert got[60] == pytest.approx(PEAK * 0.3)
    assert got[75:] == [0.0] * 5


@pytest.mark.parametrize("replanned", [((5, 5),), ((9, 20), (5, 30)), ((-1, 5),), ((5, 9), (5, 10))])
def test_a_change_of_plan_that_cannot_be_is_refused(replanned: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(UserError, match=r"schedule.replanned = .*in the order of the steps"):
        ScheduleConfig(replanned=replanned)
