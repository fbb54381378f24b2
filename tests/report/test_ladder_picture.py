"""The picture of the ladder: valid SVG that holds every curve, and names that do not overlap."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.report.ladder_picture import LadderCurve, draw_ladder, loss_ticks, spread

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"


def test_every_curve_is_drawn_from_its_first_to_its_last_step() -> None:
    curves = [LadderCurve(n, f"s<{n}>", [0, 50, 100], [4.0, 3.0, 2.0 + n / 10], 2.0 + n / 10) for n in range(1, 11)]
    root = ElementTree.fromstring(draw_ladder(curves, "a & b"))
    lines = [line.attrib["points"].split() for line in root.iter(f"{SVG}polyline")]
    assert len(lines) == 10
    for points in lines:
        x = [float(point.split(",")[0]) for point in points]
        y = [float(point.split(",")[1]) for point in points]
        assert x == [60.0, 350.0, 640.0]
        assert y == sorted(y) and y[0] < y[-1]  # a loss that falls goes down on the page
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "a & b" in texts and "10 s<10>  3.000" in texts


def test_a_curve_ends_at_the_loss_of_its_label() -> None:
    """It ended at an estimate on a part of the split, beside a label with the loss on the whole split."""
    measured, elsewhere = (
        draw_ladder([LadderCurve(1, "head", [0, 50, 100], [4.0, 3.0, end], 2.5)], "") for end in (2.5, 2.25)
    )
    assert measured == elsewhere and "1 head  2.500" in measured
    assert "at the last step, on the whole validation split" in measured


def test_losses_that_are_not_finite_leave_a_gap_and_no_nonsense() -> None:
    text = draw_ladder(
        [LadderCurve(1, "bigram", [0, 1, 2], [4.0, NAN, 3.0], 3.0), LadderCurve(2, "blocks", [0], [float("inf")], NAN)],
        "",
    )
    points = [line.attrib["points"] for line in ElementTree.fromstring(text).iter(f"{SVG}polyline")]
    assert len(points[0].split()) == 2 and points[1] == ""
    assert "nan" not in text and "2 blocks  –" in text


def test_no_curves_are_an_empty_picture() -> None:
    ElementTree.fromstring(draw_ladder([], "nothing yet"))


@pytest.mark.parametrize(("lowest", "highest"), [(1.9, 4.2), (2.0, 2.0), (0.001, 0.002), (0.0, 70.0)])
def test_ticks_hold_the_losses_between_them(lowest: float, highest: float) -> None:
    ticks = loss_ticks(lowest, highest)
    assert ticks[0] <= lowest and ticks[-1] >= highest
    assert 2 <= len(ticks) <= 11


@settings(max_examples=50)
@given(st.lists(st.floats(0, 500), max_size=12))
def test_names_keep_their_distance_and_their_order(positions: list[float]) -> None:
    moved = spread(positions, 17.0)
    pairs = sorted(zip(positions, moved, strict=True))
    for (_, above), (_, below) in pairwise(pairs):
        assert below - above >= 17.0 - 1e-6
    far_apart = all(b - a >= 17.0 for (a, _), (b, _) in pairwise(pairs))
    if far_apart:
        assert moved == pytest.approx(positions)
